"""GLUE's nine tasks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from everlearn.registry import register
from everlearn.streams.domains.domain import DomainStream
from everlearn.streams.domains.table import Entry

_LICENCE = "of each set; research use as commonly stated"


def _task(config: str, text: str, text_pair: str | None = None, metrics: tuple[str, ...] = ("accuracy",)) -> Entry:
    return Entry(
        hub="nyu-mll/glue",
        config=config,
        splits={"train": "train", "evaluation": "validation"},
        columns={"text": (text,)} | ({"text_pair": (text_pair,)} if text_pair else {}),
        metrics=metrics,
        licence=_LICENCE,
        source="gluebenchmark.com; A. Wang et al., arXiv 1804.07461",
    )


GLUE = {
    "cola": _task("cola", "sentence", metrics=("matthews", "accuracy")),
    "sst2": replace(_task("sst2", "sentence"), folders=("SST-2",)),
    "mrpc": _task("mrpc", "sentence1", "sentence2", ("accuracy", "f1")),
    "qqp": replace(_task("qqp", "question1", "question2", ("accuracy", "f1")), licence="Quora's terms, non-commercial"),
    "mnli": replace(
        _task("mnli", "premise", "hypothesis"),
        splits={"train": "train", "evaluation": "validation_matched"},
        licence="OANC and others, free to use",
    ),
    "qnli": replace(_task("qnli", "question", "sentence"), licence="CC BY-SA 4.0 (from SQuAD)"),
    "stsb": replace(
        _task("stsb", "sentence1", "sentence2", ("pearson", "spearman")),
        columns={"text": ("sentence1",), "text_pair": ("sentence2",), "score": ("label",)},
        folders=("STS-B",),
    ),
    "rte": _task("rte", "sentence1", "sentence2"),
    "wnli": _task("wnli", "sentence1", "sentence2"),
}


@register("stream", "glue")
@dataclass(frozen=True, kw_only=True)
class Glue(DomainStream):
    """GLUE's nine tasks; measured on the validation split, for the test labels are secret.

    Licence: of each set; research use as commonly stated, terms not read again.
    Source: A. Wang et al., GLUE, arXiv 1804.07461; gluebenchmark.com. No order is published.
    """

    entries: ClassVar[Mapping[str, Entry]] = GLUE
