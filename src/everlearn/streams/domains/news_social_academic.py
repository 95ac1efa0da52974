"""One tagger for news, then social media, then academic text."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from everlearn.registry import register
from everlearn.streams.domains.domain import DomainStream
from everlearn.streams.domains.ner_domains import ENTITIES
from everlearn.streams.domains.table import Entry

# what names a person, an organisation or a place in any of the three sets and on the hub
_TYPES = {
    "person": "person", "PER": "person", "scientist": "person",
    "organisation": "organisation", "ORG": "organisation", "university": "organisation",
    "corporation": "organisation", "group": "organisation",
    "location": "location", "LOC": "location", "country": "location",
}  # fmt: skip


def _domain(task: str, domain: str) -> Entry:
    entry = ENTITIES[task]
    return replace(
        entry, folders=(task, *entry.folders), types=_TYPES, remark=f"{domain}; types other than three are O"
    )


@register("stream", "news_social_academic")
@dataclass(frozen=True, kw_only=True)
class NewsSocialAcademic(DomainStream):
    """People, organisations and places in news, then social media, then academic text: one set of tags, entity F1.

    The same three types in all domains, so that one head fits them (model.head: shared): CoNLL-2003, WNUT-17 (its
    corporations and groups are organisations) and CrossNER's science (scientists are people, universities
    organisations, countries places). All other types become O.

    Licence: of each set; CoNLL-2003's is a research agreement.
    Source: of each task; the stream and the joined types are ours.
    """

    entries: ClassVar[Mapping[str, Entry]] = {
        "news": _domain("conll2003", "CoNLL-2003"),
        "social": _domain("wnut17", "WNUT-17"),
        "academic": _domain("crossner_science", "CrossNER's science"),
    }
    orders: ClassVar[Mapping[str, tuple[str, ...]]] = {"1": ("news", "social", "academic")}
