"""A home on the disk: versions that never change, which one is current, what happened, and who may change it.

home.json            schema, settings, fingerprint of the base model
current              {"version": n, "event": what made it so}; replaced atomically
log.jsonl            every event, oldest first
versions/000003/     version.json, state/ (weights, strategies, memories), scores/TASK.json, trained.json,
                     task.json and evaluation.jsonl (the task, and the items that came with it)
abilities/           what the base could do is measured on: see `everlearn.home.abilities`
memory/              large memories of strategies, in files named by their SHA-256, which versions share
library/             the experts of all versions (`everlearn.experts.store`), where strategy experts learns
tasks/TASK/          task.json, evaluation-000001.jsonl ... (of versions that were accepted)
scores/000003/       scores of that version measured later; may be deleted
scores/.../log_likelihood/TASK.json    beside a score that can't tell what is lost
scores/.../abilities/NAME.json         how much of an ability is left
scores/.../answers/TASK.json           what was answered, where that is kept
pending/             the learning in progress; its leftovers after a crash are what `resume` goes on from
lock                 held by the process that changes the home
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from everlearn.config import from_mapping
from everlearn.errors import StateError, describe
from everlearn.evaluation.answers import without_answers
from everlearn.experts.library import Library
from everlearn.experts.opening import forget
from everlearn.files import (
    append_line,
    locked,
    now,
    read_lines,
    read_sealed,
    remove,
    sha256_of,
    write_sealed,
)
from everlearn.state import fsync_folder, load_value, named_files, read_json, write_json, writing
from everlearn.types import Score

VERSION_FILE = "version.json"
_MEMORY, _LIBRARY = "../../memory/", "../../library/"  # from a version's folder


@dataclass(frozen=True)
class Version:
    """One version. status: initial, promoted, refused, or forced (refused, but the user said yes).

    gained, likelihood: how its own task changed, by its metric and by the log-likelihood of the right answers; verdict:
    what that says (`everlearn.evaluation.gain`); empty in versions made before it was asked.
    learned: the tasks that it has learned, in order. files: SHA-256 of each file of the version but this one.
    """

    number: int
    parent: int | None
    status: str
    time: str
    task: str | None = None
    learned: tuple[str, ...] = ()
    seed: int = 0
    learner: dict[str, Any] = field(default_factory=dict)
    strategies: list[Any] = field(default_factory=list)
    gate: dict[str, Any] | None = None
    gained: dict[str, Any] | None = None
    likelihood: dict[str, Any] | None = None
    verdict: str = ""
    cost: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """A score as it was kept.

    items: names of its items, in order; None where they were not kept yet: then they are the first of the task's.
    """

    score: Score
    items: tuple[str, ...] | None
    measured_on: str


class Store:
    """Reads and writes the files of one home. Nothing here loads a model."""

    def __init__(self, path: Path):
        self.path = path
        self.pending = path / "pending"
        self.tasks = path / "tasks"
        self.memory = path / "memory"
        self.library = path / "library"

    def folder(self, number: int) -> Path:
        """Return the folder of a version."""
        return self.path / "versions" / f"{number:06d}"

    def numbers(self) -> list[int]:
        """Return the numbers of all versions, ascending."""
        return sorted(int(entry.name) for entry in (self.path / "versions").glob("*") if entry.name.isdigit())

    def version(self, number: int) -> Version:
        """Return a version's record.

        Raises:
            StateError: if there is no such version, or its record is damaged.
        """
        numbers = self.numbers()
        if number not in numbers:
            way_out = f"Versions: {', '.join(map(str, numbers))}"
            raise StateError(describe(str(self.path), "there is no such version", number, way_out))
        return from_mapping(Version, read_sealed(self.folder(number) / VERSION_FILE), f"version {number}")

    def accepted_tasks(self) -> set[str]:
        """Return the tasks that a version which was ever accepted, or is current, has learned."""
        learned = set(self.version(self.current()).learned)
        for number in self.numbers():
            with suppress(StateError):  # of a damaged record nothing can be told; `problems` reports it
                record = self.version(number)
                learned |= set(record.learned) if record.status in ("promoted", "forced") else set()
        return learned

    def lineage(self, number: int) -> list[Version]:
        """Return a version and those that it comes from, newest first."""
        chain = [self.version(number)]
        while chain[-1].parent is not None:
            chain.append(self.version(chain[-1].parent))
        return chain

    def current(self) -> int:
        """Return the number of the current version.

        Raises:
            StateError: if the file is damaged.
        """
        value = read_json(self.path / "current")
        if not isinstance(value, dict) or value.get("version") not in self.numbers():
            way_out = f"Choose one with: everlearn rollback {self.path} VERSION (everlearn log lists them)"
            raise StateError(describe(str(self.path / "current"), "names no version", value, way_out))
        return value["version"]

    def set_current(self, number: int, event: dict[str, Any]) -> None:
        """Make a version the current one and log why. The event stands in `current` too: a crash can't lose it."""
        write_json(self.path / "current", {"version": number, "event": event})
        self.log(event)

    def events(self) -> list[dict[str, Any]]:
        """Return what happened, oldest first."""
        return read_lines(self.path / "log.jsonl")

    def log(self, event: dict[str, Any]) -> None:
        """Add an event to the log."""
        append_line(self.path / "log.jsonl", event)

    def state(self, number: int) -> dict[str, Any] | None:
        """Return what a version has learned, for `Run.load_state`; None for the untouched model.

        Raises:
            StateError: if it is damaged.
        """
        if self.version(number).parent is None:
            return None
        return load_value(self.folder(number) / "state")

    def score(
        self, number: int, task: str, items: Sequence[str], measured_on: str, *, stand_in: bool = False
    ) -> Score | None:
        """Return a version's score on a task, if it was measured on these items, on the same device and software.

        Args:
            items: names of the items (`everlearn.home.tasks.item_of`), in order.
            stand_in: the log-likelihood beside the task's own metric.
        """
        for kept in self.kept(number, task, stand_in=stand_in):
            if kept.measured_on == measured_on and kept.items == tuple(items):
                return kept.score
        return None

    def kept(self, number: int, task: str, *, stand_in: bool = False) -> list["Kept"]:
        """Return the scores of a version on a task that are kept: that measured last first."""
        folders = (self.path / "scores" / f"{number:06d}", self.folder(number) / "scores")
        paths = [_score_file(folder, task, stand_in) for folder in folders]
        return [_read_score(path, f"version {number}: score on {task}") for path in paths if path.exists()]

    def learned_score(self, number: int, task: str) -> Score:
        """Return the score on a task that was measured when the version was made.

        Raises:
            StateError: if it is missing or damaged.
        """
        path = _score_file(self.folder(number) / "scores", task, False)
        return _read_score(path, f"version {number}: score on {task}").score

    def keep_score(
        self, folder: Path, score: Score, items: Sequence[str], measured_on: str, *, stand_in: bool = False
    ) -> None:
        """Write a score into a folder of scores.

        What was answered has a file of its own, so that versions of everlearn that know no answers read the score.
        """
        path = _score_file(folder, score.task, stand_in)
        of_what = {"items": list(items), "measured_on": measured_on}
        if score.answers:
            answers = _answers_file(path)
            answers.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(answers, {"answers": list(score.answers), **of_what})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, {**without_answers(score), **of_what})

    def trained(self, number: int) -> dict[int, set[str]]:
        """Return for each version that `number` comes from the digests of the rows that it was trained on."""
        files = {v.number: self.folder(v.number) / "trained.json" for v in self.lineage(number) if v.parent is not None}
        return {version: set(read_json(path)) for version, path in files.items()}

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock; leftovers of a crash are cleared away first.

        Raises:
            StateError: if another process is changing the home, with its pid.
        """
        with locked(self.path / "lock"):
            for folder in (self.path, self.path / "versions", self.memory, self.pending, *self.tasks.glob("*")):
                for leftover in folder.glob(".*.tmp"):
                    remove(leftover)
            self._log_what_a_crash_left_out()
            yield

    def publish(self, staged: Path, number: int) -> None:
        """Give a finished version its place."""
        with writing(self.folder(number)):
            os.rename(staged, self.folder(number))
            fsync_folder(self.folder(number).parent)

    def forget_pending(self) -> None:
        """Remove `pending`, and what it made of the library: its version was not published."""
        forget(self.pending, self.library)
        self.drop_pending()

    def drop_pending(self) -> None:
        """Remove `pending`, at one stroke for whoever looks at it."""
        aside = self.path / f".pending.{os.getpid()}.tmp"
        with writing(self.pending):
            os.rename(self.pending, aside)
            remove(aside)
            self._clear_memory()

    def memory_files(self, state: Mapping[str, Any]) -> dict[str, str]:
        """Return {path below a version's folder: SHA-256} of the files in memory/ that a state refers to."""
        return {f"{_MEMORY}{name}": Path(name).stem for name in sorted(named_files(state))}

    def library_files(self) -> dict[str, str]:
        """Return {path below a version's folder: SHA-256} of the experts' files, as the library is now."""
        if not Library.is_library(self.library):
            return {}
        experts = Library(self.library).experts
        return {f"{_LIBRARY}experts/{e.folder}/{name}": sha for e in experts for name, (_, sha) in e.files.items()}

    def take_library(self, number: int) -> None:
        """Let the library be what a version knows of it, and its router what it was then; nothing is deleted.

        Raises:
            StateError: if the version or the library is damaged.
        """
        if not Library.is_library(self.library):
            return
        strategies = (self.state(number) or {"strategies": {}})["strategies"].values()
        snapshots = [own["library_"] for own in strategies if own.get("library_")]
        Library(self.library).restore(next(iter(snapshots), Library.EMPTY))

    def problems(self, number: int) -> list[str]:
        """Return what is wrong with a version's files, a sentence each."""
        try:
            record = self.version(number)
        except StateError as error:
            return [str(error)]
        found = []
        for name, sha256 in record.files.items():
            path = self.folder(number) / name
            if not path.is_file():
                found.append(f"{path}: is missing.")
            elif sha256_of(path) != sha256:
                found.append(f"{path}: is damaged (its checksum differs).")
        return found

    def _clear_memory(self) -> None:
        """Delete the files in memory/ that no version refers to; nothing may be pending."""
        present = list(self.memory.glob("*"))
        if not present:
            return
        try:
            files = [name for number in self.numbers() for name in self.version(number).files]
        except StateError:
            return  # what a damaged version refers to can't be told, so nothing is deleted
        named = {name.removeprefix(_MEMORY) for name in files if name.startswith(_MEMORY)}
        for path in present:
            if path.name not in named:
                remove(path)

    def _log_what_a_crash_left_out(self) -> None:
        try:
            event = read_json(self.path / "current")["event"]
        except (StateError, KeyError, TypeError):
            return  # `current` is damaged: rollback mends it, everything else reports it
        if event not in self.events():
            self.log(event)


def event_of(kind: str, version: int, details: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event for the log, stamped with the time (UTC)."""
    return {"time": now(), "event": kind, "version": version, **details}


def files_in(folder: Path) -> dict[str, str]:
    """Return {path below folder: SHA-256} of all files."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def _score_file(folder: Path, task: str, stand_in: bool) -> Path:
    return folder / "log_likelihood" / f"{task}.json" if stand_in else folder / f"{task}.json"


def _answers_file(score_file: Path) -> Path:
    return score_file.parent / "answers" / score_file.name


def _read_score(path: Path, where: str) -> Kept:
    """Return a score as it was kept, with its answers: those of the same items, measured on the same device."""
    value = read_sealed(path)
    items, measured_on = value.pop("items", None), value.pop("measured_on")
    score = from_mapping(Score, value, where)
    answers = read_sealed(_answers_file(path)) if _answers_file(path).exists() else {}
    if answers and (answers["items"], answers["measured_on"]) == (items, measured_on):
        score = replace(score, answers=tuple(answers["answers"]))
    return Kept(score, None if items is None else tuple(items), measured_on)
