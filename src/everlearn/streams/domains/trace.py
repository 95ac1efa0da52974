"""TRACE: eight tasks for language models, from stance to code."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from everlearn.registry import register
from everlearn.streams.domains.domain import DomainStream
from everlearn.streams.domains.table import Entry


def _task(source: str, published: str = "") -> Entry:
    return Entry(
        columns={"completion": ("answer",)},
        metrics=("exact_match",) if not published else ("token_log_likelihood", "exact_match"),
        licence="of the set, not read",
        source=source,
        remark=f"measured there by {published}; here by the answer's likelihood" if published else "",
    )


TRACE = {
    "C-STANCE": _task("C-STANCE, Chinese stance of posts"),
    "FOMC": _task("FOMC, statements of the Federal Reserve"),
    "MeetingBank": _task("MeetingBank, summaries of city council meetings", "ROUGE-L"),
    "Py150": _task("Py150 of CodeXGLUE, the next line of Python", "edit similarity"),
    "ScienceQA": _task("ScienceQA, questions with answer and explanation", "the answer's letter alone"),
    "NumGLUE-cm": _task("NumGLUE, commonsense arithmetic"),
    "NumGLUE-ds": _task("NumGLUE, domain-specific arithmetic"),
    "20Minuten": _task("20Minuten, simplified German news", "SARI"),
}


@register("stream", "trace")
@dataclass(frozen=True, kw_only=True)
class Trace(DomainStream):
    """TRACE's eight tasks of prompts and answers, in its order: stance, finance, meetings, code, science, sums, German.

    No data set of the hub is known to hold all of it: give the folder LLM-CL-Benchmark_5000 that its repository links
    to, with train.json, eval.json and test.json (a list of prompt and answer) for each task.

    Licence: its repository's is MIT; those of the sets were not read.
    Source: X. Wang et al., TRACE, arXiv 2310.06762; github.com/BeyonderXX/TRACE, whose scripts give the order.
    Departs: summaries, code, explained answers and simplified texts are measured by likelihood, not by ROUGE-L, edit
    similarity, the answer's letter and SARI.
    """

    entries: ClassVar[Mapping[str, Entry]] = TRACE
    orders: ClassVar[Mapping[str, tuple[str, ...]]] = {"1": tuple(TRACE)}
