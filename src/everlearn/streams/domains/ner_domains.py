"""Named entities in nine domains, each with types of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from everlearn.registry import register
from everlearn.streams.domains.domain import DomainStream
from everlearn.streams.domains.table import Entry

_UNSEEN = "id and export as others load them; not loaded by us"


def _task(hub: str, licence: str, source: str, tags: str = "ner_tags", **more: object) -> Entry:
    return Entry(
        hub=hub,
        exported=True,
        columns={"tags": (tags,)},
        metrics=("entity_f1",),
        licence=licence,
        source=source,
        **more,
    )


def _crossner(domain: str) -> Entry:
    source = "Z. Liu et al., CrossNER, arXiv 2012.04373"
    return _task("DFKI-SLT/cross_ner", "CC BY-SA (Wikipedia's text)", source, config=domain, folders=(domain,))


ENTITIES = {
    "conll2003": _task(
        "eriktks/conll2003", "Reuters news, research agreement", "E. Tjong Kim Sang and F. De Meulder, 2003",
        remark=_UNSEEN, folders=("conll",),
    ),
    "crossner_politics": _crossner("politics"),
    "crossner_science": _crossner("science"),
    "crossner_music": _crossner("music"),
    "crossner_literature": _crossner("literature"),
    "crossner_ai": _crossner("ai"),
    "wnut17": _task("leondz/wnut_17", "CC BY 4.0", "L. Derczynski et al., WNUT 2017", folders=("wnut2017", "wnut_17")),
    "bc5cdr": _task(
        "tner/bc5cdr", "as BioCreative V states", "J. Li et al., BioCreative V CDR, 2016", "tags",
        labels=("O", "B-Chemical", "B-Disease", "I-Disease", "I-Chemical"), remark=_UNSEEN,
    ),
    "ncbi_disease": _task(
        "ncbi/ncbi_disease", "CC BY 4.0 as its copies state", "R. Dogan et al., NCBI disease corpus, 2014",
        remark=_UNSEEN,
    ),
}  # fmt: skip


@register("stream", "ner_domains")
@dataclass(frozen=True, kw_only=True)
class NerDomains(DomainStream):
    """Named entities of news, CrossNER's five domains, social media and two of medicine; entity F1.

    Each domain has entity types of its own, so it gets a head of its own unless model.head is shared. CrossNER's train
    files hold 100 to 200 sentences.

    Licence: of each set; CoNLL-2003's is a research agreement.
    Source: of each task. The order is ours: news first, on which CrossNER builds; none is published.
    """

    entries: ClassVar[Mapping[str, Entry]] = ENTITIES
