"""Whether a task's metrics fit its labels and rows, looked at when it is read."""

import re
from collections.abc import Sequence

from everlearn.errors import ConfigError, StreamError, describe
from everlearn.types import Kind, Rows

_ENTITY_TAG = re.compile(r"O|[BIES](-.+)?")  # what seqeval reads: IOB, BIO, IOBES
_SHOWN = 4


def fitting_metrics(
    where: str, kind: Kind, labels: Sequence[str], metrics: tuple[str, ...], evaluation: Rows, *, declared: bool
) -> tuple[tuple[str, ...], list[str]]:
    """Return a task's metrics, and sentences on them: where the kind's own doesn't fit, another takes its place.

    Args:
        metrics: as they were asked for; empty for the kind's own.
        declared: whether the labels' order was given.

    Raises:
        ConfigError: if tags that name no entities are to be measured by entities.
        StreamError: if a row has no choices to measure the choice among.
    """
    if kind == "tag":
        return _of_tags(where, labels, metrics)
    if "choice" in metrics:
        bare = [index for index, row in enumerate(evaluation) if not row.get("choices")]
        if bare:
            way_out = "Add a column choices with the possible completions, or use exact_match"
            got = f"{len(bare)} of {len(evaluation)} rows, the first is evaluation row {bare[0] + 1}"
            raise StreamError(describe(f"{where}: metric choice", "rows have no choices", got, way_out))
    if kind == "classify" and "f1" in metrics and len(labels) == 2 and not declared:
        return metrics, [
            f"{where}: f1 is that of the label {labels[1]!r}, the second one; 'labels' gives another order."
        ]
    return metrics, []


def _of_tags(where: str, labels: Sequence[str], metrics: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    others = [label for label in labels if not _ENTITY_TAG.fullmatch(label)]
    shown = ", ".join(others[:_SHOWN])
    if others and "entity_f1" in metrics:
        way_out = "Use accuracy, or write the tags of entities as O, B-NAME, I-NAME"
        what = f"entity_f1 can't read tags such as {shown}"
        raise ConfigError(describe(f"{where}: metrics", what, list(metrics), way_out))
    if others and not metrics:
        note = f"{where}: tags such as {shown} name no entities (O, B-NAME, I-NAME), so accuracy is measured."
        return ("accuracy",), [note]
    return metrics, []
