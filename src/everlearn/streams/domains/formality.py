"""How formal a sentence is, in four kinds of text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from everlearn.registry import register
from everlearn.streams.domains.domain import DomainStream
from everlearn.streams.domains.table import Entry


def _genre(name: str) -> Entry:
    return Entry(
        hub="osyvokon/pavlick-formality-scores",
        columns={"text": ("sentence",), "score": ("avg_score",)},
        where={"domain": name},
        metrics=("spearman", "pearson", "negative_mae"),
        licence="CC BY 3.0",
        source="E. Pavlick and J. Tetreault, TACL 2016",
    )


@register("stream", "formality")
@dataclass(frozen=True, kw_only=True)
class Formality(DomainStream):
    """How formal a sentence is, in news, blogs, mail and answers: a number from -3 to 3, as people rated it.

    Licence: CC BY 3.0, as the data set's card on the hub states.
    Source: E. Pavlick and J. Tetreault, An Empirical Analysis of Formality in Online Communication, TACL 2016. The
    order, from formal to informal, is ours.
    """

    entries: ClassVar[Mapping[str, Entry]] = {name: _genre(name) for name in ("news", "blog", "email", "answers")}
