"""The model home: one model kept for years, its versions, and the gate that watches what is lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from everlearn.config import CheckpointConfig, EvaluationConfig, from_mapping, listed
from everlearn.errors import ConfigError, Paused, StateError, describe, nearest
from everlearn.home.abilities import files_of
from everlearn.home.base import check_unchanged, settle
from everlearn.home.comparing import CheckReport, Diff, Drift, compare_versions, find_problems, measure_drift
from everlearn.home.gate import Gate
from everlearn.home.learning import LearnReport, carry_out, report_of, settle_published
from everlearn.home.making import SCHEMA, make_home
from everlearn.home.pending import (
    Plan,
    kept_on_failure,
    read_failure,
    read_plan,
    refuse_pending,
    write_pending,
)
from everlearn.home.reading import check_apart, check_not_trained, read_new
from everlearn.home.settings import DEFAULT_ABILITIES, Settings
from everlearn.home.store import Store, Version, event_of
from everlearn.home.tasks import (
    TaskCard,
    add_items,
    check_same,
    known_task,
    load_own,
    load_tasks,
    new_items,
    replace_items,
    revised,
    tasks_with_own,
)
from everlearn.home.versions import Versions
from everlearn.learners.budget import AUTO
from everlearn.listener import Listener
from everlearn.models.export import export_model
from everlearn.models.load import ModelConfig, with_dtype
from everlearn.models.reloaded import Exported
from everlearn.state import read_json
from everlearn.strategy import overriding
from everlearn.streams.reading import Data
from everlearn.types import Rows


@dataclass(frozen=True)
class RetireReport:
    """What came of taking items out of a task, or of correcting them. n_items: how many there are now."""

    task: str
    n_retired: int
    n_corrected: int
    n_items: int


class Home:
    """One model that is taught for years. Make one with `Home.create`, open it with `Home.open`.

    Attributes:
        path: its folder; `everlearn.home.store` tells what is in it.
        settings: its model, and the defaults for learning.
    """

    def __init__(self, path: Path, settings: Settings, fingerprint: Mapping[str, str], listener: Listener):
        self.path = path
        self.settings = settings
        self.listener = listener
        self._fingerprint = dict(fingerprint)
        self._store = Store(path)

    @classmethod
    def create(
        cls,
        path: str | Path,
        model: str | ModelConfig | Mapping[str, Any] = "pocket",
        *,
        learner: Mapping[str, Any] | None = None,
        strategies: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = ("replay", "ewc"),
        settings: Settings | None = None,
        listener: Listener | None = None,
    ) -> "Home":
        """Make a home for a model in a new folder. Version 0 is the model as it is.

        Args:
            model: `pocket`, `smollm2`, a folder, a GGUF file, a hub id, a ModelConfig or its mapping.
            learner, strategies: the defaults for learning; one strategy may stand without a list.
            settings: all of that and more, instead of the three.

        Raises:
            StateError: if the folder is not empty. ModelError: if there is no such model. ConfigError: if a value is
                wrong.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            way_out = "Name a new folder; everlearn learn teaches the model of a home that is there"
            raise StateError(describe("home", "the folder is not empty", str(path), way_out))
        if settings is None:
            config = {"name": model} if isinstance(model, str) else model
            config = config if isinstance(config, ModelConfig) else from_mapping(ModelConfig, config, "model")
            settings = Settings(
                config, {"name": "sft", "epochs": AUTO, **(learner or {})}, listed(strategies),
                evaluation=EvaluationConfig(abilities=list(DEFAULT_ABILITIES)),
            )  # fmt: skip
        config, fingerprint = settle(with_dtype(settings.model, settings.device))
        files = files_of(settings.evaluation.abilities)
        names = [Path(name).name for name in settings.evaluation.abilities]  # of files, those of the home's copies
        settings = replace(settings, model=config, evaluation=replace(settings.evaluation, abilities=names))
        make_home(path, settings, fingerprint, files)
        return cls(path, settings, fingerprint, listener or Listener())

    @classmethod
    def open(cls, path: str | Path, listener: Listener | None = None) -> "Home":
        """Open a home. What a crash left unfinished at the very end of a learning is finished.

        Raises:
            StateError: if there is no home, or its home.json is damaged.
        """
        path = Path(path)
        if not cls.is_home(path):
            way_out = f"Make one: everlearn init {path} --model MODEL"
            raise StateError(describe("home", "there is no home in the folder", str(path), way_out))
        content = read_json(path / "home.json")
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            got = content.get("schema") if isinstance(content, dict) else content
            raise StateError(describe(str(path / "home.json"), "is of another schema", got, f"Known: {SCHEMA}"))
        settings = from_mapping(Settings, content.get("settings"), "home.json: settings")
        if settings.model.chat == "auto":  # made before this was settled, and learned without turns
            settings = replace(settings, model=replace(settings.model, chat="never"))
        home = cls(path, settings, content.get("base", {}), listener or Listener())
        home._settle()
        return home

    @staticmethod
    def is_home(path: str | Path) -> bool:
        """Tell whether a folder is a home."""
        return (Path(path) / "home.json").is_file()

    @property
    def current(self) -> int:
        """Number of the current version."""
        return self._store.current()

    def learn(
        self,
        task: str,
        train: Data,
        evaluate: Data | None = None,
        *,
        validation: Data | None = None,
        options: Mapping[str, Any] | None = None,
        strategies: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
        learner: Mapping[str, Any] | None = None,
        seed: int | None = None,
        gate: Gate | None = None,
        force: bool = False,
        checkpoint: CheckpointConfig | None = None,
        discard_pending: bool = False,
    ) -> LearnReport:
        """Teach the current version a task, or more of one it knows, and let the gate decide on the new version.

        Args:
            task: its name. train, evaluate, validation: files (JSONL, CSV, Parquet) or rows in memory. Without
                `evaluate` a fifth of the training rows is held out, and a tenth for validation where early stopping
                can act (more epochs than its patience).
            options: of `everlearn.streams.loading.TaskOptions`, such as {"columns": {"prompt": "question"}}.
            strategies, learner, seed, checkpoint: instead of the home's; learner options not named stay the home's.
            force: promote even if the gate refuses, or nothing was learned; logged.
            discard_pending: drop a learning that was begun and not finished.

        Raises:
            StreamError: if data is bad, or a training row is an evaluation item. ConfigError: if an option is wrong.
            StateError: if a learning is unfinished, another process changes the home, or the disk is full.
            TrainingError: if a loss or a score is not finite, a verifier fails, or memory runs out.
            Paused: after SIGINT; `resume` goes on, as it may after other errors once training has begun.
        """
        settings = replace(
            self.settings,
            learner={**self.settings.learner, **(learner or {})},
            strategies=self.settings.strategies if strategies is None else listed(strategies),
            checkpoint=checkpoint or self.settings.checkpoint,
        )
        with self._store.changing():
            self._clear_pending(discard_pending)
            parent = self._store.current()
            self._check_base()
            wants_validation = settings.build_learner().uses_validation
            card, rows, notes = self._read(task, train, evaluate, validation, options or {}, parent, wants_validation)
            plan = Plan(
                number=self._store.numbers()[-1] + 1,
                parent=parent,
                card=card,
                learner=settings.learner,
                strategies=settings.strategies,
                seed=self.settings.seed if seed is None else seed,
                gate=gate or Gate(),
                force=force,
                checkpoint=settings.checkpoint,
                notes=notes,
            )
            write_pending(self._store, plan, rows)
            return self._carry_out(begun=True)

    def resume(self) -> LearnReport:
        """Go on with a learning that was paused or killed, to the same end as if it never stopped.

        On a CPU the weights are the same bit for bit.

        Raises:
            StateError: if there is none.
        """
        with self._store.changing():
            if not self._store.pending.exists():
                way_out = "everlearn learn teaches something new; everlearn log shows what was learned"
                raise StateError(describe(str(self.path), "there is nothing to go on with", "no pending/", way_out))
            number = read_plan(self._store).number
            if settle_published(self._store):
                return report_of(self._store, number)
            with kept_on_failure(self._store):
                self._check_base()
            return self._carry_out()

    def check(self) -> CheckReport:
        """Verify every stored file, and score the current version anew on every task beside when it was learned."""
        versions = self._versions(tolerant=True)
        problems = find_problems(versions, self._fingerprint)
        drifts = () if problems else measure_drift(versions, self.current)
        pending = failure = None
        if self._store.pending.exists() and not problems:
            pending, failure = read_plan(self._store).card.name, read_failure(self._store)
        return CheckReport(-1 if problems else self.current, tuple(problems), drifts, pending, failure)

    def since_learned(self) -> tuple[Drift, ...]:
        """Return how each task of the current version changed since it was learned, and the items on which it did."""
        self._check_base()
        return measure_drift(self._versions(), self.current, fresh=False)

    def log(self) -> list[dict[str, Any]]:
        """Return what happened in the home, oldest first."""
        return self._store.events()

    def versions(self) -> list[Version]:
        """Return the records of all versions."""
        return [self._store.version(number) for number in self._store.numbers()]

    def lineage(self) -> list[Version]:
        """Return the records of the current version and of those that it comes from, newest first."""
        return self._store.lineage(self.current)

    @property
    def library(self) -> Path:
        """Folder of the experts, where strategy experts learns."""
        return self._store.library

    def diff(self, before: int, after: int) -> Diff:
        """Return how two versions differ, paired on the same items.

        A refused version has its own items beside those of the home.
        """
        self._check_base()
        return compare_versions(self._versions(before, after), before, after)

    def rollback(self, version: int, *, force: bool = False) -> None:
        """Make an earlier (or later) version the current one. Nothing is deleted. With a refused one come its items.

        Raises:
            StateError: if there is no such version, it is damaged, or the gate refused it and `force` isn't given; if
                the home has come to know its task with other labels or metrics.
        """
        with self._store.changing():
            record = self._store.version(version)
            problems = self._store.problems(version)
            if problems:
                raise StateError(problems[0])
            if record.status == "refused" and not force:
                way_out = "Use --force to make it current all the same"
                raise StateError(describe(f"version {version}", "was refused by the gate", record.task, way_out))
            if record.status == "refused":
                self._bring_in(record)
            self._store.take_library(version)
            self._store.set_current(version, event_of("rollback", version, {"status": record.status, "forced": force}))

    def retire(
        self, task: str, items: Data, *, correct: bool = False, options: Mapping[str, Any] | None = None
    ) -> RetireReport:
        """Take evaluation items out of a task or, with `correct`, put right what they hold. Nothing is measured anew.

        Versions keep the scores that they have; comparisons are on the items of both. What is no item any more may be
        trained on.

        Args:
            items: a file or rows like those of the task. Without `correct` they are the items as they are stored; with
                it rows that ask what an item asks, and take its place.
            options: as in `learn`.

        Raises:
            StreamError: if rows are bad or no items of the task, or no item would be left. ConfigError: if an option is
                wrong. StateError: if there is no such task, or another process changes the home.
        """
        with self._store.changing():
            if self._store.pending.exists() and not settle_published(self._store):
                refuse_pending(self._store)
            card, present = known_task(self._store.tasks, task)
            chosen = {**(options or {}), "allow_overlap": True}
            rows = read_new(task, items, items, None, chosen, card)[1].evaluation
            left, n_changed = revised(task, present, rows, correct=correct)
            if n_changed:
                replace_items(self._store.tasks / task, card, left)
                counts = {"corrected" if correct else "retired": n_changed, "items": len(left)}
                self._store.log(event_of("retire", self._store.current(), {"task": task, **counts}))
        n_retired, n_corrected = (0, n_changed) if correct else (n_changed, 0)
        return RetireReport(task, n_retired, n_corrected, len(left))

    def export(
        self, folder: str | Path, *, merged: bool = False, version: int | None = None, task: str | None = None
    ) -> Exported:
        """Write a version for use without everlearn: a peft adapter, or with `merged` a whole model; and the tokenizer.

        It is loaded back, and its logits of some evaluation rows are compared with those of the version.

        Args:
            version: by default the current one.
            task: whose head is exported, for a classifier with a head per task; or whose weights, where a strategy
                such as packnet gives each task its own.

        Raises:
            ConfigError: if the folder is not empty, or the head isn't clear. ModelError: if it can't be exported so.
        """
        number = self.current if version is None else version
        self._check_base()
        versions = self._versions(number)
        tasks = versions.learned_tasks(number)
        if not tasks:
            way_out = f"It is the base model as it is: {self.settings.model.name}"
            raise StateError(describe(f"version {number}", "has learned nothing to export", number, way_out))
        if merged and self.settings.model.quantization is not None:
            versions.settings = replace(versions.settings, model=replace(self.settings.model, quantization=None))
        run = versions.open(number, tasks)
        apart = [
            strategy.name
            for strategy in overriding(run.strategies, "before_eval")
            if strategy.isolates or strategy.encloses
        ]
        if apart and task is None and len(tasks) > 1:
            way_out = f"Name one with --task: {', '.join(tasks)}"
            raise ConfigError(describe("export: task", f"{apart[0]} gives each task its own weights", None, way_out))
        if apart and task is not None and task not in tasks:
            way_out = f"{nearest(task, tasks)}Tasks: {', '.join(tasks)}"
            raise ConfigError(describe("export: task", "was not learned", task, way_out))
        head = None if apart and run.model.kind == "causal" else task
        checked_on = tasks.get(task) or list(tasks.values())[-1]
        for strategy in run.strategies:
            strategy.lay_in(run, checked_on)
        with run.ready_for(checked_on):
            return export_model(run.model, Path(folder), checked_on, merged=merged, task=head)

    def _read(
        self,
        name: str,
        train: Data,
        evaluation: Data | None,
        validation: Data | None,
        options: Mapping[str, Any],
        parent: int,
        wants_validation: bool,
    ) -> tuple[TaskCard, dict[str, Rows], list[str]]:
        """Return a task's card, its rows by role (of the evaluation items those that are new), and notes on them."""
        accepted = self._store.accepted_tasks()
        stored = {other: found for other, found in load_tasks(self._store.tasks).items() if other in accepted}
        known, present = stored.get(name, (None, []))
        card, task = read_new(
            name, train, evaluation, validation, options, known, wants_validation=wants_validation
        )  # fmt: skip
        items, n_differing = new_items(task.evaluation, present)
        notes = [*task.notes, *check_apart(task, [other.task([], rows) for other, rows in stored.values()])]
        notes += check_not_trained(task, items, self._store.trained(parent))
        notes += [_differing(name, n_differing, self.path)] if n_differing else []
        return card, {"train": task.train, "validation": task.validation or [], "evaluation": items}, notes

    def _carry_out(self, *, begun: bool = False) -> LearnReport:
        """Do what pending/ says. begun: it was laid down just now, so that what can't be done as asked is dropped."""
        try:
            with kept_on_failure(self._store, begun=begun):
                return carry_out(self._versions())
        except Paused as paused:
            raise Paused(str(self.path)) from paused

    def _versions(self, *numbers: int, tolerant: bool = False) -> Versions:
        """Return versions with all tasks of the home; those of `numbers` that were refused with their own beside."""
        try:
            stored = load_tasks(self._store.tasks)
        except StateError:
            if not tolerant:
                raise
            stored = {}
        refused = {n: self._store.folder(n) for n in numbers if self._store.version(n).status == "refused"}
        stored = tasks_with_own(stored, refused, own_counts=len(numbers) == 1)
        tasks = {name: card.task([], rows) for name, (card, rows) in stored.items()}
        return Versions(self._store, self.settings, tasks, self.listener)

    def _bring_in(self, record: Version) -> None:
        """Let the items of a version that the gate refused be the home's, as those of an accepted one are."""
        own = load_own(self._store.folder(record.number))
        if own is None:
            return
        if self._store.pending.exists() and not settle_published(self._store):
            refuse_pending(self._store)
        card, rows = own
        known, present = load_tasks(self._store.tasks).get(card.name, (card, []))
        check_same(known, card, record.number)
        add_items(self._store.tasks / card.name, known, new_items(rows, present)[0], record.number)

    def _check_base(self) -> None:
        check_unchanged(self.settings.model, self._fingerprint)

    def _clear_pending(self, discard: bool) -> None:
        if not self._store.pending.exists():
            return
        try:
            if settle_published(self._store):
                return
        except StateError:
            if not discard:
                raise
        if not discard:
            refuse_pending(self._store)
        self._store.forget_pending()
        self._store.log(event_of("discard", self._store.numbers()[-1] + 1, {}))

    def _settle(self) -> None:
        """Let a version that was published just before a crash take effect, unless someone is at work here."""
        if not self._store.pending.exists():
            return
        try:
            with self._store.changing():
                settle_published(self._store)
        except StateError:
            return  # busy, or damaged: whatever needs it will say so


def _differing(task: str, n: int, path: Path) -> str:
    way_out = f"everlearn retire {path} {task!r} --items FILE --correct puts others in their place"
    return f"{n} evaluation items were there already with another answer; the stored answers are kept. {way_out}."
