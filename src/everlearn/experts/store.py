"""A library on the disk. All that changes is one value in one file, so that a crash leaves the old one or the new.

library.json              schema, base, settings, and the `State`: replaced at one stroke, with a checksum
experts/000017/           an expert: adapter_config.json, adapter_model.safetensors (a plain peft adapter),
                          heads.safetensors (of a classifier), expert.json (a copy of its record, for people)
experts/000017-000041/    the same expert after it was adapted; its earlier weights stay until they are pruned
profiles.safetensors      prototypes; rows are only added
router/000042/            what a router keeps, as `save_value` writes it
index/                    a cache of the profiles, by which a router searches thousands of them; may be deleted
log.jsonl                 what happened, oldest first
lock                      held by the process that changes the library

Weights never change once they have their place. What a crash left half-written is cleared away by the next change.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from everlearn.errors import ConfigError, StateError, describe
from everlearn.experts.base import Base
from everlearn.experts.profiles import Profiles
from everlearn.experts.record import LIVE, PRUNED, Expert
from everlearn.files import append_line, locked, now, read_lines, read_sealed, remove, sha256_of, staged, write_sealed
from everlearn.state import is_leftover, writing

SCHEMA = 1
LIBRARY, EXPERT, LOG = "library.json", "expert.json", "log.jsonl"
_COPY = "Restore the folder from a copy; the other experts can be used meanwhile"


@dataclass(frozen=True)
class Settings:
    """What a library is made with. rank: the largest that an expert may have. targets: last parts of the names of the
    layers that it may stand on. max_loaded: experts in memory, at most."""  # fmt: skip

    rank: int
    targets: tuple[str, ...]
    max_loaded: int


@dataclass(frozen=True)
class State:
    """All that changes in a library. generation: counts changes, and names the folders made by them. profiled_with: the
    settings that its prototypes are measured with; None while they are not told."""  # fmt: skip

    generation: int = 0
    next_expert: int = 0
    next_prototype: int = 0
    dimension: int | None = None
    profiled_with: dict[str, Any] | None = None
    router: str | None = None
    experts: dict[int, Expert] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {**vars(self), "experts": [vars(expert) for expert in self.experts.values()]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "State":
        """Undo `as_json`."""
        experts = map(Expert.from_json, value["experts"])
        return cls(**{**value, "experts": {expert.number: expert for expert in experts}})


class Store:
    """Reads a library's files and changes them, all of a change or nothing. Nothing here loads a model.

    Raises:
        StateError: if there is no library, or its library.json is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self.profiles = Profiles(path / "profiles.safetensors")
        self._changing = False
        self._events: list[dict[str, Any]] = []
        self._new_rows: dict[int, torch.Tensor] = {}
        self._last: dict[str, Any] = {}  # what the last change has to leave in the log and in expert.json
        self._read_from: tuple[int, ...] | None = None
        self._is_past = False
        self.read()

    @staticmethod
    def make(path: Path, base: Base, settings: Settings) -> None:
        """Write an empty library; the folder, which must be empty or not there, appears whole.

        Raises:
            StateError: if it is in use, or can't be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            way_out = "Name a new folder; Library.open opens a library that is there"
            raise StateError(describe("library", "the folder is not empty", str(path), way_out))
        with staged(path) as aside:
            (aside / "experts").mkdir()
            (aside / "router").mkdir()
            write_sealed(aside / LIBRARY, _content(base, settings, State(), {}))
            append_line(aside / LOG, {"time": now(), "event": "begun", "base": base.name})

    def read(self) -> None:
        """Read library.json, unless it is as it was."""
        place = self.path / LIBRARY
        try:
            stat = place.stat()
        except OSError as error:
            way_out = "Make one: Library.create, or everlearn experts add FOLDER ADAPTER --model MODEL"
            raise StateError(describe("library", "there is none in the folder", str(self.path), way_out)) from error
        read_from = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if read_from == self._read_from:
            return
        content = read_sealed(place)
        if content.get("schema") != SCHEMA:
            raise StateError(describe(str(place), "is of another schema", content.get("schema"), f"Known: {SCHEMA}"))
        self.base = Base.from_json(content["base"])
        self.settings = Settings(**{**content["settings"], "targets": tuple(content["settings"]["targets"])})
        self.state, self._last = State.from_json(content["state"]), content["last"]
        self.profiles.forget()
        self._read_from = read_from

    def look_at(self, state: State) -> None:
        """Show another state than the present one from now on; nothing can be changed through this object any more."""
        self.state, self._is_past = state, True

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock; what is changed until the block ends becomes so at one stroke, or not at all if it raises.

        Within another such block it belongs to that one.

        Raises:
            StateError: if another process is changing the library, with its pid; if this looks at the past.
        """
        if self._is_past:
            way_out = "Library.open opens it as it is; restore goes back to what it was"
            raise StateError(describe(str(self.path), "is looked at as it was", self.state.generation, way_out))
        if self._changing:
            yield
            return
        with locked(self.path / "lock", "library"):
            self.read()
            self._finish_last()
            self._clear_unfinished()
            before, self._changing = self.state, True
            try:
                yield
                if self.state is not before or self._events:
                    self._commit(before)
            except BaseException:
                self._read_from = None  # whether the change came about before the error, the disk knows
                self.read()
                raise
            finally:
                self._changing, self._events, self._new_rows = False, [], {}
                self._clear_unfinished()

    def folder(self, name: str) -> Path:
        """Return where the weights of that name are."""
        return self.path / "experts" / name

    def put(self, expert: Expert) -> Expert:
        """Let an expert take the place of the one of its number."""
        self.state = replace(self.state, experts={**self.state.experts, expert.number: expert})
        return expert

    def next_name(self) -> str:
        """Return a number, as a name, that no folder made by a change has had."""
        self.state = replace(self.state, generation=self.state.generation + 1)
        return f"{self.state.generation:06d}"

    def add_row(self, vector: torch.Tensor) -> int:
        """Keep a prototype and return its number."""
        number = self.state.next_prototype
        self._new_rows[number] = vector
        self.state = replace(self.state, next_prototype=number + 1, dimension=len(vector))
        return number

    def row(self, number: int) -> torch.Tensor:
        """Return a prototype, [dimension].

        Raises:
            StateError: if the profiles are damaged.
        """
        rows = self._new_rows if number in self._new_rows else self.profiles.rows
        if number not in rows:
            way_out = "Open the library again if another process pruned it, or restore the file from a copy"
            raise StateError(describe(str(self.profiles.path), "lacks a prototype", number, way_out))
        return rows[number]

    def event(self, name: str, /, **details: Any) -> None:
        """Put a line into the log, together with the change.

        Raises:
            ConfigError: if the details are no JSON.
        """
        self._events.append({"time": now(), "event": name, **as_json(f"log: {name}", details)})

    def write_record(self, expert: Expert, folder: Path) -> None:
        """Write an expert's record beside its weights."""
        write_sealed(folder / EXPERT, {"base": self.base.fingerprint, **vars(expert)})

    def problems(self, expert: Expert, *, whole: bool) -> list[str]:
        """Return what is wrong with an expert's files, a sentence each.

        Args:
            whole: compare each byte with its checksum; else sizes alone.
        """
        if expert.status == PRUNED:
            return []
        found = []
        for name, (n_bytes, sha256) in expert.files.items():
            path = self.folder(expert.folder) / name
            if not path.is_file():
                found.append(describe(str(path), "is missing", name, _COPY))
            elif path.stat().st_size != n_bytes:
                found.append(describe(str(path), f"is damaged (it should have {n_bytes} bytes)", _size(path), _COPY))
            elif whole and sha256_of(path) != sha256:
                found.append(describe(str(path), "is damaged (its checksum differs)", name, _COPY))
        return found

    def sweep(self) -> int:
        """Delete the weights, routers and prototypes that nothing refers to. Return how many bytes that frees."""
        experts = [expert for expert in self.state.experts.values() if expert.status != PRUNED]
        used = {name for expert in experts for name in (expert.folder, *expert.earlier)} | {self.state.router}
        before = _n_bytes(self.path)
        with writing(self.path):
            for place in ("experts", "router"):
                for entry in (self.path / place).iterdir():
                    if entry.name not in used and _numbers(entry.name) is not None:
                        remove(entry)
        kept = {number for expert in experts for number in expert.prototypes.values()}
        if kept != self.profiles.rows.keys():
            self.profiles.write({number: row for number, row in self.profiles.rows.items() if number in kept})
        return before - _n_bytes(self.path)

    def _commit(self, before: State) -> None:
        changed = [n for n, expert in self.state.experts.items() if before.experts.get(n) is not expert]
        if self._new_rows:
            known = {n: row for n, row in self.profiles.rows.items() if n < before.next_prototype}
            self.profiles.write({**known, **self._new_rows})
        self.state = replace(self.state, generation=self.state.generation + 1)
        events = [{"change": self.state.generation, **event} for event in self._events]  # so that no two are alike
        self._last = {"events": events, "changed": changed}
        write_sealed(self.path / LIBRARY, _content(self.base, self.settings, self.state, self._last))
        stat = (self.path / LIBRARY).stat()
        self._read_from = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        self._finish_last()

    def _finish_last(self) -> None:
        """Write what follows from the last change, whose process may have ended before it had: log and copies."""
        events = self._last.get("events", [])
        if events:
            present = read_lines(self.path / LOG)
            for event in events:
                if event not in present:
                    append_line(self.path / LOG, event)
        for number in self._last.get("changed", []):
            expert = self.state.experts.get(number)
            if expert is not None and self.folder(expert.folder).is_dir():
                self._copy_record(expert)
        self._last = {}

    def _copy_record(self, expert: Expert) -> None:
        folder = self.folder(expert.folder)
        for leftover in filter(is_leftover, list(folder.iterdir())):
            remove(leftover)
        with suppress(StateError):  # missing or damaged: it is written anew
            if Expert.from_json({k: v for k, v in read_sealed(folder / EXPERT).items() if k != "base"}) == expert:
                return
        self.write_record(expert, folder)

    def _clear_unfinished(self) -> None:
        """Delete what was written for a change that didn't come about."""
        places = (self.path, self.path / "experts", self.path / "router")
        with writing(self.path):
            for entry in [entry for place in places for entry in place.iterdir() if self._is_unfinished(entry)]:
                remove(entry)

    def _is_unfinished(self, entry: Path) -> bool:
        if is_leftover(entry):
            return True
        numbers = None if entry.parent == self.path else _numbers(entry.name)
        if numbers is None:
            return False
        if entry.parent.name == "router":
            return numbers[0] > self.state.generation
        return numbers[0] >= self.state.next_expert or numbers[1] > self.state.generation


def _content(base: Base, settings: Settings, state: State, last: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA, "base": vars(base), "settings": vars(settings), "state": state.as_json(), "last": last,
    }  # fmt: skip


def _numbers(name: str) -> tuple[int, int] | None:
    """Return the numbers in a name such as 000017-000041 (0 where there is no second), None for a name of others."""
    first, _, second = name.partition("-")
    return (int(first), int(second or 0)) if (first + second).isdigit() else None


def _n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _size(path: Path) -> str:
    return f"{path.stat().st_size} bytes"


def as_json(where: str, value: Any) -> Any:
    """Return a value as it comes back from JSON; raise ConfigError where it can't be kept so."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        way_out = "Give numbers that are finite, texts, and lists and dicts of them"
        raise ConfigError(describe(where, f"can't be kept ({error})", value, way_out)) from error


def live(experts: Mapping[int, Expert]) -> list[Expert]:
    """Return the experts that are in use, by number."""
    return [expert for _, expert in sorted(experts.items()) if expert.status == LIVE]
