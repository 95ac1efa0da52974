"""One topic classification, a language a task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from everlearn.registry import register
from everlearn.streams.domains.domain import DomainStream
from everlearn.streams.domains.table import Entry

LANGUAGES = ("eng_Latn", "deu_Latn", "spa_Latn", "rus_Cyrl", "arb_Arab", "hin_Deva", "zho_Hans", "swh_Latn")


def _language(code: str) -> Entry:
    return Entry(
        hub="Davlan/sib200",
        config=code,
        exported=True,
        columns={"label": ("category",)},
        metrics=("accuracy",),
        licence="CC BY-SA 4.0",
        source="D. Adelani et al., SIB-200, arXiv 2309.07445",
    )


@register("stream", "multilingual")
@dataclass(frozen=True, kw_only=True)
class Multilingual(DomainStream):
    """The topic of a sentence, in eight languages and five scripts; the same sentences and classes in each.

    Licence: CC BY-SA 4.0, as the data set states.
    Source: D. Adelani et al., SIB-200, arXiv 2309.07445. The choice of languages and their order are ours.
    """

    entries: ClassVar[Mapping[str, Entry]] = {code: _language(code) for code in LANGUAGES}
