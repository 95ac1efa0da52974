"""What the user should know of a task's rows though it is no error: sentences for `Task.notes`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from everlearn.streams.parts import Part
from everlearn.streams.rows import column_of
from everlearn.types import IGNORED, Kind, Rows

Split = Mapping[str, tuple[str, Sequence[int] | None]]  # role -> the part that its rows come from, and which (all)

_SHOWN = 4
_CONTENTS = {"prompt": "prompts", "tag": "sentences"}


def held_out(where: str, parts: Mapping[str, Part], split: Split) -> Iterator[str]:
    """Yield how many rows were set aside, and what for."""
    purposes = {"evaluation": "for evaluation", "validation": "for early stopping (validation)"}
    n_held = {role: len(indices) for role, (_, indices) in split.items() if role in purposes and indices is not None}
    if n_held:
        counts = " and ".join(f"{n} are held out {purposes[role]}" for role, n in n_held.items())
        yield f"{where}: of {len(parts['train'].numbers)} rows, {counts}."


def near_duplicates(where: str, parts: Mapping[str, Part]) -> Iterator[str]:
    """Yield how many evaluation rows differ from a training or validation row in case or white space alone."""
    measured = parts.get("evaluation")
    for role in ("train", "validation"):
        if measured is None or role not in parts:
            continue
        other = parts[role]
        exact, loose = set(other.digests), {number: index for index, number in enumerate(other.loose)}
        near = [
            index
            for index, (digest, number) in enumerate(zip(measured.digests, measured.loose, strict=True))
            if number in loose and digest not in exact
        ]
        if near:
            first = f"{measured.place(near[0])} and {other.place(loose[measured.loose[near[0]]])}"
            yield (
                f"{where}: evaluation rows that differ from a row of {role} in case, white space or Unicode form "
                f"alone: {len(near)} of {len(measured.numbers)}, the first is {first}."
            )


def two_answers(where: str, parts: Mapping[str, Part], split: Split, kind: Kind) -> Iterator[str]:
    """Yield how many contents have two answers or more: in training, in evaluation, and between the two."""
    if kind in ("text", "preference"):  # pairs of one prompt are several judgements
        return
    firsts: dict[str, dict[bytes, int]] = {}
    for role in ("train", "evaluation"):
        part, indices = _rows_of(parts, split, role)
        first: dict[bytes, int] = {}
        pairs: dict[bytes, tuple[int, int]] = {}
        for index in indices:
            before = first.setdefault(part.digests[index], index)
            if part.answers[before] != part.answers[index]:
                pairs.setdefault(part.digests[index], (before, index))
        if pairs:
            one, other = next(iter(pairs.values()))
            shown = f"{part.place(one)} and {part.place(other)}"
            asked = _CONTENTS.get(kind, "texts")
            yield f"{where}: {asked} of {role} with two answers or more: {len(pairs)}, the first at {shown}."
        firsts[role] = first
    (train, _), (measured, _) = (_rows_of(parts, split, role) for role in ("train", "evaluation"))
    shared = firsts["train"].keys() & firsts["evaluation"].keys()
    both = sorted((firsts["evaluation"][digest], firsts["train"][digest]) for digest in shared)
    both = [(item, row) for item, row in both if measured.answers[item] != train.answers[row]]
    if both:
        shown = f"{measured.place(both[0][0])} and {train.place(both[0][1])}"
        what = f"{_CONTENTS.get(kind, 'texts')} of evaluation with another answer in train"
        yield f"{where}: {what}: {len(both)}, the first at {shown}."


def unlearnable_labels(where: str, labels: Sequence[str], kind: Kind, rows: Mapping[str, Rows]) -> Iterator[str]:
    """Yield the labels of evaluation and validation rows that no training row has: such items can't be right."""
    if not labels:
        return
    learned = set(_labels_of(kind, rows["train"]))
    for role in ("evaluation", "validation"):
        counts = Counter(_labels_of(kind, rows.get(role, ())))
        missing = {number: n for number, n in counts.items() if number not in learned}
        if missing:
            shown = ", ".join(f"{labels[number]!r} ({n})" for number, n in list(missing.items())[:_SHOWN])
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            what = f"labels in {role} that no training row has, so that they can't be right unless learned before"
            yield f"{where}: {what}: {shown}{more}."


def _rows_of(parts: Mapping[str, Part], split: Split, role: str) -> tuple[Part, Iterable[int]]:
    origin, indices = split[role]
    return parts[origin], range(len(parts[origin].numbers)) if indices is None else indices


def _labels_of(kind: Kind, rows: Rows) -> Iterator[int]:
    if kind == "classify":
        return iter(column_of(rows, "label"))
    lists = column_of(rows, "labels" if kind == "multilabel" else "tags")
    return (label for labels in lists for label in labels if label != IGNORED)
