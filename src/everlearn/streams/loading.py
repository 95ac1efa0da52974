"""A task out of files or rows in memory: read, checked row by row, split where asked, labels numbered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from everlearn.errors import ConfigError, StreamError, describe, nearest
from everlearn.streams import notes
from everlearn.streams.checking import CHOOSE, COLUMNS, REQUIRED, Rules, kind_of, rename, shape_of
from everlearn.streams.labels import LabelBook
from everlearn.streams.metrics import fitting_metrics
from everlearn.streams.parts import BadRows, Part, check_disjoint, read_part, to_rows
from everlearn.streams.reading import Data, Source, open_source
from everlearn.streams.values import notes_on
from everlearn.types import Task

FILE_KINDS = ("prompt", "preference", "classify", "multilabel", "score", "tag", "text")
WITH_LABELS = ("classify", "multilabel", "tag")
THRESHOLDS = ("one", "each")
_PEEKED = 20  # rows whose columns tell the kind
_DEFAULT_VALIDATION = 0.1  # share of a single file's rows


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """How a task is made of its rows; all but the first two shares hold for every kind.

    Args:
        columns: our column name -> the file's, such as `{prompt: question, completion: answer}`.
        kind: prompt, preference, classify, multilabel, score, tag or text; found by the columns if not given.
        labels: names of the classes or tags in order; whole numbers in the rows are indices into them. If not given,
            they are those that the data declares, else those that occur: whole numbers by value, names sorted.
        choices: the possible answers of a `prompt` task, for each row that has no column `choices`.
        metrics, verifier, max_new_tokens, threshold, beta: as in `Task`.
        description: what the task is, in words; by default its name says it. Strategy experts compares tasks by it.
        extra_columns: columns to keep beside those of the kind, say for a verifier; null where a row has none. Values
            that JSON lacks become text (dates: ISO 8601) or null (NaN), and a note says so.
        eval_fraction: share of the rows held out for evaluation where no evaluation data is given.
        validation_fraction: share of the rows held out for validation where no validation data is given; by default 0.1
            where `wants_validation` and evaluation rows are held out too, else 0.
        on_bad_row: "error" raises with the first five bad rows, "skip" leaves bad rows out and warns.
        allow_overlap: do not refuse rows that are trained on and are evaluation items too, of this task or another.
        wants_validation: whether validation rows will be used. A run sets it: where early stopping can act.

    Raises:
        ConfigError: if a value is none of the allowed ones.
    """

    columns: dict[str, str] = field(default_factory=dict)
    kind: str | None = None
    labels: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    verifier: str | None = None
    max_new_tokens: int | None = None
    threshold: str | None = None
    beta: float = 0.1
    description: str | None = None
    extra_columns: list[str] = field(default_factory=list)
    eval_fraction: float = 0.2
    validation_fraction: float | None = None
    on_bad_row: str = "error"
    allow_overlap: bool = False
    wants_validation: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        self._check_names()
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            self._refuse("max_new_tokens", "Allowed: 1 or more")
        if not 0 < self.beta < float("inf"):
            self._refuse("beta", "Allowed: above 0")
        if len(set(self.labels)) < len(self.labels):
            self._refuse("labels", "Name each label once")
        if not 0 < self.eval_fraction < 1:
            self._refuse("eval_fraction", "Allowed: above 0 and below 1")
        if not 0 <= (self.validation_fraction or 0) < 1:
            self._refuse("validation_fraction", "Allowed: 0 or more and below 1")
        if self.eval_fraction + (self.validation_fraction or 0) >= 1:
            self._refuse("validation_fraction", "With eval_fraction it must leave rows to train on, so below 1 in sum")

    def _check_names(self) -> None:
        if self.kind is not None and self.kind not in FILE_KINDS:
            self._refuse("kind", f"{nearest(self.kind, FILE_KINDS)}Known: {', '.join(FILE_KINDS)}")
        for ours in self.columns:
            if ours not in COLUMNS:
                self._refuse("columns", f"{nearest(ours, COLUMNS)}Our columns: {', '.join(COLUMNS)}")
        for name, allowed in (("on_bad_row", ("error", "skip")), ("threshold", (None, *THRESHOLDS))):
            if vars(self)[name] not in allowed:
                self._refuse(name, f"Allowed: {', '.join(one or 'null' for one in allowed)}")

    def _check_types(self) -> None:
        for name in ("labels", "choices", "metrics", "extra_columns"):
            value = vars(self)[name]
            if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
                self._refuse(name, "Write a list of texts")
        if self.description is not None and (not isinstance(self.description, str) or not self.description.strip()):
            self._refuse("description", "Say in a few words what the task is, or leave it out")
        if not isinstance(self.columns, Mapping):
            self._refuse("columns", "Write our column: the file's, such as prompt: question")
        for name in ("max_new_tokens", "beta", "eval_fraction", "validation_fraction"):
            value = vars(self)[name]
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                self._refuse(name, "Write a number")

    def _refuse(self, name: str, way_out: str) -> None:
        value = vars(self)[name]
        raise ConfigError(describe(f"stream.{name}", "the value is not allowed", value, way_out))


def build_task(name: str, train: Data, evaluation: Data | None, validation: Data | None, options: TaskOptions) -> Task:
    """Return the task `name`; see `load_task` of `everlearn.streams.files`.

    A row held out is chosen by the hash of its content, so that rows that are equal, or differ in case or white space
    alone, stay together, and a row stays where it is when others are added.
    """
    where = f"task {name!r}"
    given = {"train": train, "validation": validation, "evaluation": evaluation}
    sources = {role: open_source(data, where, role) for role, data in given.items() if data is not None}
    shape = _shape(where, sources["train"], options)
    book = LabelBook(_declared_labels(where, shape, sources, options))
    bad = BadRows(where)
    changes: dict[str, set[str]] = {}
    parts = {}
    for role, source in sources.items():  # the training rows first: they tell what is a label
        parts[role] = read_part(source, _rules(shape, book, source, options, changes), bad)
        book.closed = True
    bad.settle(options.on_bad_row)
    for role, part in parts.items():
        if not len(part.numbers):
            raise StreamError(describe(where, f"no good row is left in {role}", part.source.name, "Mend the rows"))
    if not options.allow_overlap:
        check_disjoint(where, parts)
    labels, new_numbers = book.order(where)
    split = _split(where, parts, options)
    rows = {role: to_rows(parts[origin], new_numbers, indices) for role, (origin, indices) in split.items()}
    if options.threshold is not None and (shape != "multilabel" or "validation" not in rows):
        way_out = "Give rows with several labels and a validation_fraction, or leave it out"
        what = "threshold is chosen on validation rows of texts with several labels"
        raise ConfigError(describe(where, what, f"{kind_of(shape)} rows: {', '.join(rows)}", way_out))
    kind = kind_of(shape)
    metrics, of_metrics = fitting_metrics(
        where, kind, labels, tuple(options.metrics), rows["evaluation"], declared=bool(book.declared)
    )
    return Task(
        name=name,
        kind=kind,
        train=rows["train"],
        evaluation=rows["evaluation"],
        validation=rows.get("validation"),
        labels=labels if shape in WITH_LABELS else (),
        metrics=metrics,
        verifier=options.verifier,
        max_new_tokens=options.max_new_tokens,
        threshold=options.threshold,
        beta=options.beta,
        description=options.description or "",
        notes=(
            *notes.held_out(where, parts, split),
            *notes_on(where, changes),
            *book.notes(where),
            *of_metrics,
            *notes.unlearnable_labels(where, labels, kind, rows),
            *notes.near_duplicates(where, parts),
            *notes.two_answers(where, parts, split, kind),
        ),
        allow_overlap=options.allow_overlap,
    )


def _rules(shape: str, book: LabelBook, source: Source, options: TaskOptions, changes: dict[str, set[str]]) -> Rules:
    return Rules(
        shape=shape,
        book=book,
        columns=options.columns,
        choices=tuple(options.choices),
        extra_columns=tuple(options.extra_columns),
        untyped=source.untyped,
        padded=source.padded,
        changes=changes,
    )


def _shape(where: str, source: Source, options: TaskOptions) -> str:
    """Return the shape of the rows by the columns of the first readable ones."""
    readable = (row for _, row in source.read() if not isinstance(row, str))
    peeked: list[Mapping[str, Any]] = list(islice(readable, _PEEKED))
    found = {column: None for row in peeked for column in row}
    if peeked:
        for ours, theirs in options.columns.items():
            if theirs not in found:
                way_out = f"{nearest(theirs, found)}Columns there: {', '.join(map(str, found))}"
                raise StreamError(describe(where, f"{source.name} has no column to map to {ours!r}", theirs, way_out))
    rows = [rename(row, options.columns) for row in peeked]
    ours = {column for row in rows for column in row}
    if {"messages", "prompt"} <= ours and options.kind in (None, "prompt"):
        return _chosen_shape(where, source, options)
    shape = options.kind or shape_of(ours)
    if options.kind == "prompt" and "messages" in ours:
        return "messages"
    if shape == "prompt" and any(isinstance(row.get("prompt"), list) for row in rows):
        return "conversation"
    if shape is None and peeked:
        known = "; ".join(" and ".join(required) for required in REQUIRED.values())
        way_out = f"Map columns with 'columns', or name them by one of the conventions: {known}"
        raise StreamError(describe(where, f"the columns of {source.name} tell no kind", list(found), way_out))
    return shape or "text"  # no row could be read: the reader's own reasons are the error to come


def _chosen_shape(where: str, source: Source, options: TaskOptions) -> str:
    """Return which of two forms counts in a file that has both, as its columns were mapped."""
    named = [name for name in ("messages", "prompt") if name in options.columns]
    if len(named) != 1:
        raise StreamError(describe(where, f"{source.name} has both prompt and messages", named, CHOOSE.capitalize()))
    return named[0]


def _declared_labels(where: str, shape: str, sources: dict[str, Source], options: TaskOptions) -> tuple[str, ...]:
    if shape not in WITH_LABELS:
        if options.labels:
            way_out = "Leave labels out, or use choices for the answers of prompts"
            raise StreamError(
                describe(where, f"rows of kind {kind_of(shape)!r} have no labels", options.labels, way_out)
            )
        return ()
    in_data = {source.labels for source in sources.values() if source.labels}
    if len(in_data) > 1:
        way_out = "Write the files with the same labels in the same order"
        raise StreamError(describe(where, "its files declare different labels", sorted(in_data), way_out))
    if not in_data:
        return tuple(options.labels)
    declared = in_data.pop()
    if options.labels and set(options.labels) != set(declared):
        way_out = f"The data declares {', '.join(declared)}; leave labels out"
        raise StreamError(describe(where, "labels are not those of the data", options.labels, way_out))
    return declared


def _split(where: str, parts: dict[str, Part], options: TaskOptions) -> dict[str, tuple[str, list[int] | None]]:
    """Return for each role the part that its rows come from and their indices there (None: all)."""
    kept: dict[str, tuple[str, list[int] | None]] = {role: (role, None) for role in parts}
    eval_share = 0.0 if "evaluation" in parts else options.eval_fraction
    validation_share = options.validation_fraction
    if validation_share is None:
        both = eval_share and (options.wants_validation or options.threshold is not None)
        validation_share = min(_DEFAULT_VALIDATION, (1 - eval_share) / 2) if both else 0.0
    if "validation" in parts:
        validation_share = 0.0
    if not eval_share and not validation_share:
        return kept
    digests = parts["train"].loose
    lowest = min(digests)
    held: dict[str, list[int]] = {"train": [], "evaluation": [], "validation": []}
    for index, digest in enumerate(digests):
        position = digest / 2**64
        if position < eval_share or (eval_share and digest == lowest):  # at least one item, however small the file
            held["evaluation"].append(index)
        elif position < eval_share + validation_share:
            held["validation"].append(index)
        else:
            held["train"].append(index)
    if not held["train"]:
        way_out = "Give more rows, or an evaluation file of its own"
        raise StreamError(describe(where, "no row is left to train on after the split", len(digests), way_out))
    return kept | {role: ("train", indices) for role, indices in held.items() if indices}
