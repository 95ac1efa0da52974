"""Aspect sentiment: how a review speaks of one thing in it, a product a task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from everlearn.registry import register
from everlearn.streams.domains.domain import DomainStream
from everlearn.streams.domains.table import Entry

PRODUCTS = {
    "SemEval14": ("rest", "laptop"),
    "Bing3Domains": ("Speaker", "Router", "Computer"),
    "Bing5Domains": ("Nokia6610", "NikonCoolpix4300", "CreativeLabsNomadJukeboxZenXtra40GB", "CanonG3",
                     "ApexAD2600Progressive"),
    "Bing9Domains": ("CanonPowerShotSD500", "CanonS100", "DiaperChamp", "HitachiRouter", "ipod", "LinksysRouter",
                     "MicroMP3", "Nokia6600", "Norton"),
}  # fmt: skip


def _task(group: str, product: str) -> Entry:
    return Entry(
        folders=(f"{group}/asc/{product}", f"{group}/{product}", f"Xu{group}/asc/{product}", f"Xu{group}/{product}"),
        columns={"text": ("sentence",), "text_pair": ("aspect", "term"), "label": ("polarity",)},
        metrics=("accuracy",),
        licence="none stated, research use",
        source="SemEval 2014, task 4" if group == "SemEval14" else "product reviews of B. Liu's group",
    )


@register("stream", "asc")
@dataclass(frozen=True, kw_only=True)
class Asc(DomainStream):
    """Sentiment towards an aspect (the second text) in reviews of 19 products; classes are very uneven.

    No data set of the hub is known for it: give the folder dat of its repository, with train.json, dev.json and
    test.json for each product, or files of your own with text, text_pair (or aspect) and label.

    Licence: none stated; reviews for research use.
    Source: Z. Ke et al., github.com/ZixuanKe/LifelongSentClass and PyContinual, whose loader lists the 19 tasks as they
    stand here. Their order is drawn anew there by a file of sequences, so that none is published.
    """

    entries: ClassVar[Mapping[str, Entry]] = {
        f"{group}_{product}": _task(group, product) for group, products in PRODUCTS.items() for product in products
    }
