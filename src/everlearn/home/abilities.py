"""What the base model could do before it learned, watched over a home's versions.

abilities/NAME         files that were named, copied when the home was made; files.json has their SHA-256
abilities/made/        what the base wrote, and what it thought of it: made once, before the first learning
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from everlearn.errors import ConfigError, StateError, StreamError, TrainingError, describe
from everlearn.evaluation.abilities import Abilities
from everlearn.evaluation.probes import ARENA, SELF
from everlearn.files import read_sealed, sha256_of, write_sealed
from everlearn.home.gate import Comparison, Gate
from everlearn.home.store import Store, Version, files_in, remove
from everlearn.home.tasks import item_of
from everlearn.home.versions import Versions
from everlearn.models.load import network_kind
from everlearn.state import (
    fsync_folder,
    load_value,
    save_value,
    write_file,
    writing,
)
from everlearn.types import Score, Task
from everlearn.way import Run

ABILITY = "abilities/"  # begins the name of an ability where others have the name of a task
_FILES, _MADE = "files.json", "made.json"


def files_of(names: Sequence[str]) -> dict[str, Path]:
    """Return {name in the home: path} of the files among the names of abilities; what they hold can be measured.

    Raises:
        ConfigError: if two are called alike, or rows are of another kind. StreamError: if one can't be read.
    """
    paths = [Path(name).expanduser() for name in names if name not in (SELF, ARENA)]
    files = {path.name: path for path in paths}
    if len(files) < len(paths):
        way_out = "Give each file a name of its own: the home keeps copies"
        raise ConfigError(describe("abilities", "two files have one name", [str(path) for path in paths], way_out))
    Abilities.read(list(map(str, paths)))
    return files


def keep_files(home: Path, files: Mapping[str, Path]) -> None:
    """Copy files into a home that is being made."""
    if not files:
        return
    folder = home / "abilities"
    folder.mkdir()
    for name, path in files.items():
        try:
            write_file(folder / name, path.read_bytes())
        except OSError as error:
            raise StreamError(describe("abilities", f"can't be read ({error})", str(path), "Name a file")) from error
    write_sealed(folder / _FILES, {name: sha256_of(folder / name) for name in files})


def watches(versions: Versions, tasks: Iterable[Task]) -> bool:
    """Return whether abilities are watched: some are named, and the tasks are of a model that writes."""
    settings = versions.settings
    return bool(settings.evaluation.abilities) and network_kind(list(tasks), settings.model.head) == "causal"


def make_probes(versions: Versions, task: Task) -> None:
    """Let the base write what its abilities are measured on, unless it did. The home's lock must be held.

    Args:
        task: what is to be learned: the base is loaded for it.

    Raises:
        StateError: if a file is damaged, or the disk is full.
    Cost: loads the model; see `Abilities.make`. Once in a home's life.
    """
    store = versions.store
    if not watches(versions, [task]) or _made(store).exists():
        return
    versions.listener.inform("Before it learns, the base model writes what its abilities are measured on from now on.")
    probes = _read(store, versions.settings.evaluation.abilities)
    probes.make(versions.open(0, {task.name: task}))
    aside = store.path / f".abilities.{os.getpid()}.tmp"
    with writing(_made(store)):
        remove(aside)
        save_value(aside / "state", probes.state(), "abilities")
        write_sealed(aside / _MADE, files_in(aside))
        _made(store).parent.mkdir(exist_ok=True)
        os.rename(aside, _made(store))
        fsync_folder(_made(store).parent)


def measure_abilities(versions: Versions, number: int, *, fresh: bool = False) -> dict[str, Score]:
    """Return how much a version has of each ability, {abilities/NAME: score}; empty where none are watched.

    Args:
        fresh: measure it anew; else what is kept is taken, as far as it was measured on the same device and software.

    Raises:
        StateError: if a file is damaged.
    """
    probes = read_probes(versions)
    if probes is None:
        return {}
    store, where, of_what = versions.store, versions.measured_on(), _fingerprint(versions.store)
    names = [f"{ABILITY}{name}" for name in measured_names(probes)]
    found = {} if fresh else {name: store.score(number, name, of_what, where) for name in names}
    if None in found.values() or fresh:
        tasks = versions.learned_tasks(number) or versions.tasks
        found = scores_of(probes, versions.open(number, tasks))
        for score in () if fresh else found.values():
            store.keep_score(store.path / "scores" / f"{number:06d}", score, of_what, where)
    return found


def scores_of(probes: Abilities, run: Run) -> dict[str, Score]:
    """Return how much a run has of each ability now.

    Raises:
        Paused: if that was asked for. TrainingError: if a score isn't finite: the weights are broken.
    """
    found = {}
    for score in probes.measure(run):
        run.saving.pause_if_asked()
        if not all(math.isfinite(value) for value in (score.value, *score.outcomes)):
            way_out = "Learn with a lower learner.learning_rate, or go back to an earlier version"
            raise TrainingError(describe(f"ability {score.task!r}", "the score is not finite", score.value, way_out))
        found[f"{ABILITY}{score.task}"] = replace(score, task=f"{ABILITY}{score.task}")
    return found


def keep_abilities(versions: Versions, folder: Path, scores: Mapping[str, Score]) -> None:
    """Write a version's scores into its folder of scores."""
    for score in scores.values():
        versions.store.keep_score(folder, score, _fingerprint(versions.store), versions.measured_on())


def read_probes(versions: Versions) -> Abilities | None:
    """Return what abilities are measured on; None where none are watched, or nothing was learned yet.

    Raises:
        StateError: if a file is damaged.
    """
    names, store = versions.settings.evaluation.abilities, versions.store
    if not names or not _made(store).exists():
        return None
    for name, sha256 in read_sealed(_made(store) / _MADE).items():
        _check(_made(store) / name, sha256)
    probes = _read(store, names)
    probes.load_state(load_value(_made(store) / "state"))
    return probes


def measured_names(probes: Abilities) -> list[str]:
    """Return the names of the abilities that can be measured: without the arena if the base solves none of it."""
    return [name for name in probes.names if name == SELF or name in probes.tasks]


def abilities_before(versions: Versions, gate: Gate, parent: int) -> dict[str, tuple[int, Score]]:
    """Return, for each ability, the version that a new one is compared with, and its score: the base, or the version
    that last lost more of it than the gate accepts and was taken all the same."""  # fmt: skip
    base = measure_abilities(versions, 0)
    accepted = {name: _accepted(versions.store.lineage(parent), name, gate) for name in base}
    return {name: (n, measure_abilities(versions, n)[name] if n else base[name]) for name, n in accepted.items()}


def ability_comparisons(before: Mapping[str, tuple[int, Score]], after: Mapping[str, Score]) -> list[Comparison]:
    """Return a new version's scores beside those of `abilities_before`."""
    return [Comparison(score, after[name], version) for name, (version, score) in before.items()]


def ability_problems(versions: Versions) -> None:
    """Raise StateError if a file is missing or damaged."""
    if versions.settings.evaluation.abilities:
        _check_files(versions.store)
        read_probes(versions)


def _accepted(lineage: Sequence[Version], name: str, gate: Gate) -> int:
    """Return the newest version that was taken although it lost too much of an ability; 0, the base, if none was."""
    for record in lineage:
        for verdict in (record.gate or {}).get("abilities", ()):
            loss, wider = -verdict["change"]["difference"], record.gate["abilities_tolerance"] > gate.abilities
            if verdict["change"]["task"] == name and (verdict["refused"] or (wider and loss > gate.abilities)):
                return record.number
    return 0


def _read(store: Store, names: Sequence[str]) -> Abilities:
    """Return the probes of these names; files are those that the home keeps, so that it can be moved."""
    _check_files(store)
    paths = {name: name if name in (SELF, ARENA) else str(_files(store) / name) for name in names}
    read = Abilities.read(list(paths.values()))
    tasks = {name: replace(read.tasks[path], name=f"{ABILITY}{name}") for name, path in paths.items() if path != name}
    return Abilities(tuple(names), tasks)


def _check_files(store: Store) -> None:
    if (_files(store) / _FILES).exists():
        for name, sha256 in read_sealed(_files(store) / _FILES).items():
            _check(_files(store) / name, sha256)


def _check(path: Path, sha256: str) -> None:
    if sha256_of(path) != sha256:
        way_out = "Restore it from a copy of the home"
        raise StateError(describe(str(path), "is damaged (its checksum differs)", path.name, way_out))


def _fingerprint(store: Store) -> list[str]:
    """Return what the scores of abilities are scores on."""
    return [item_of(read_sealed(_made(store) / _MADE))]


def _files(store: Store) -> Path:
    return store.path / "abilities"


def _made(store: Store) -> Path:
    return store.path / "abilities" / "made"
