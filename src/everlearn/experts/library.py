"""The library: LoRA experts of one frozen model in a folder, made, changed, merged and taken out of use."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from everlearn.errors import ConfigError, ModelError, StateError, check_number, describe
from everlearn.experts.base import Base
from everlearn.experts.lora import Lora
from everlearn.experts.merging import Merge, merged
from everlearn.experts.profiles import Prototypes, checked
from everlearn.experts.record import LIVE, PRUNED, RETIRED, Expert, Head, Learned
from everlearn.experts.store import LIBRARY, Settings, State, Store, as_json, live
from everlearn.experts.weights import HEADS, read_heads, write_weights
from everlearn.files import now, read_lines, staged
from everlearn.models.load import Model
from everlearn.state import load_value, save_value

_COUNTERS = ("generation", "next_expert", "next_prototype")


class Library:
    """LoRA experts of one frozen model. Make one with `Library.create`, open it with `Library.open`.

    `everlearn.experts.store` tells what is in the folder. Nothing here loads a model or holds an expert in memory;
    `everlearn.experts.Slots` puts experts into a model. Each method that changes something holds the lock while it
    does; what stands in one `with library.changing():` happens at one stroke.

    Attributes:
        path: its folder. base: the model that its experts belong to. settings: what it was made with.
        EMPTY: the snapshot of one in which there never was anything.
    """

    EMPTY: ClassVar[dict[str, Any]] = State().as_json()

    def __init__(self, path: Path):
        self.path = path
        self._store = Store(path)
        self.base, self.settings = self._store.base, self._store.settings

    @classmethod
    def create(
        cls, path: str | Path, model: Model, *, rank: int = 16, max_loaded: int = 8, targets: Sequence[str] = ()
    ) -> "Library":
        """Make an empty library for a model's base in a new folder.

        Args:
            rank: the largest that an expert may have, and several composed together.
            max_loaded: how many experts a model holds at most.
            targets: last parts of the names of the layers that they may stand on; by default of all linear layers.

        Raises:
            StateError: if the folder is not empty. ModelError: if the model has no such layers. ConfigError: if a
                number is wrong.
        Cost: reads the model's files once.
        """
        check_number("library: rank", rank, low=1)
        check_number("library: max_loaded", max_loaded, low=1)
        base = Base.of(model)
        known = {name.rpartition(".")[2] for name in base.layers}
        targets = tuple(sorted(set(targets) or known))
        if not set(targets) <= known:
            way_out = f"Known: {', '.join(sorted(known))}"
            raise ModelError(describe("library: targets", "the model has no such linear layer", targets, way_out))
        Store.make(Path(path), base, Settings(rank, targets, max_loaded))
        return cls(Path(path))

    @classmethod
    def open(cls, path: str | Path, model: Model | None = None) -> "Library":
        """Open a library.

        Args:
            model: that its experts are to be used with.

        Raises:
            StateError: if there is none, or library.json is damaged. ModelError: if the model has another base.
        Cost: about 30 ms of the processor for 1,000 experts; with a model, its files are read once.
        """
        library = cls(Path(path))
        if model is not None:
            library.base.check_same(Base.of(model), str(path))
        return library

    @staticmethod
    def is_library(path: str | Path) -> bool:
        """Tell whether a folder is a library."""
        return (Path(path) / LIBRARY).is_file()

    def __len__(self) -> int:
        return len(self.experts)

    @property
    def experts(self) -> list[Expert]:
        """The experts in use, by number."""
        return live(self._store.state.experts)

    @property
    def records(self) -> dict[int, Expert]:
        """{number: expert} of all that there ever were."""
        return dict(sorted(self._store.state.experts.items()))

    def expert(self, number: int) -> Expert:
        """Return what is known of an expert.

        Raises:
            ConfigError: if there is none of that number.
        """
        known = self._store.state.experts
        if number not in known:
            way_out = f"Known: {', '.join(map(str, sorted(known)[:20])) or 'none yet'}"
            raise ConfigError(describe(str(self.path), "there is no such expert", number, way_out))
        return known[number]

    def lora(self, number: int) -> Lora:
        """Return an expert's weights, every byte checked.

        Raises:
            StateError: if they are damaged or pruned; the other experts can be used meanwhile.
        """
        expert = self.expert(number)
        if expert.status == PRUNED:
            raise StateError(describe(self._name(expert), "its weights were pruned", expert.reason, "Learn it anew"))
        problems = self._store.problems(expert, whole=True)
        if problems:
            raise StateError(f"{self._name(expert)}: {problems[0]}")
        return Lora.read(self._store.folder(expert.folder))

    def head(self, number: int, task: str) -> Head:
        """Return the head of a classification task that an expert learned.

        Raises:
            ConfigError: if it has none for that task. StateError: if it can't be read.
        """
        expert = self.expert(number)
        if task not in expert.labels:
            way_out = f"Tasks with a head: {', '.join(expert.labels) or 'none'}"
            raise ConfigError(describe(self._name(expert), "has no head for this task", task, way_out))
        return self._heads(expert)[task]

    def add(
        self,
        lora: Lora,
        description: str,
        *,
        tag: str = "",
        learned: Sequence[Learned] = (),
        origin: str = "created",
        parents: Sequence[int] = (),
    ) -> Expert:
        """Keep a new expert.

        Args:
            description: of what it is for, in words. tag: of experiment and task.
            learned: the tasks that it has learned. origin: created, forked, merged or imported; parents: from which.

        Raises:
            ModelError: if it doesn't fit the base, or is larger than the library takes. ConfigError: if the description
                is empty, or a prototype is of another dimension. StateError: if it can't be written.
        """
        return self._keep(lora, description, tag, learned, origin, parents)

    def _keep(
        self, lora: Lora, description: str, tag: str, learned: Sequence[Learned], origin: str, parents: Sequence[int],
        **details: Any,
    ) -> Expert:  # fmt: skip
        if not description.strip():
            way_out = "Say in a few words what the expert is for"
            raise ConfigError(describe("expert: description", "is empty", description, way_out))
        with self.changing():
            number = self._store.state.next_expert
            name = f"{number:06d}"
            for parent in parents:
                self.expert(parent)
            self._check(lora, f"expert {number}")
            self._store.state = replace(self._store.state, next_expert=number + 1)
            expert = Expert(
                number, tag, description, origin, name, lora.rank, tuple(lora.targets), now(), tuple(parents)
            )  # fmt: skip
            expert = self._written(self._with_tasks(expert, learned), lora, learned, {})
            told = {"tag": tag, "parents": list(parents), "tasks": list(expert.tasks)}
            self._store.event(origin, expert=number, **told, **details)
        return self.expert(number)

    def adapt(self, number: int, lora: Lora, learned: Learned, heads: Mapping[str, Head] | None = None) -> Expert:
        """Give an expert other weights, after it learned a task more or the same one again.

        Its number, its earlier prototypes and heads stay; its earlier weights do too, until `prune`.

        Args:
            heads: of earlier tasks, by task, where they moved meanwhile.

        Raises:
            as `add` does.
        """
        with self.changing():
            expert = self._in_use(number)
            self._check(lora, self._name(expert))
            heads = {**(self._heads(expert) if expert.labels else {}), **(heads or {})}
            name = f"{number:06d}-{self._store.next_name()}"
            expert = replace(
                expert, folder=name, earlier=(*expert.earlier, expert.folder), rank=lora.rank,
                targets=tuple(lora.targets),
            )  # fmt: skip
            self._written(self._with_tasks(expert, [learned]), lora, [learned], heads)
            self._store.event("adapted", expert=number, task=learned.task)
        return self.expert(number)

    def merge(self, numbers: Sequence[int], description: str, how: Merge | None = None, *, tag: str = "") -> Expert:
        """Make one expert out of several. They stay as they are; `retire` takes them out of use.

        It has their prototypes and heads; where two learned the same task, those of the first.

        Raises:
            ConfigError: if they are fewer than two. ModelError: if the result is larger than the library takes.
            StateError: if one of them is damaged.
        Cost: see `everlearn.experts.merging`.
        """
        how = how or Merge()
        with self.changing():
            parents = [self._in_use(number) for number in numbers]
            lora = merged([self.lora(number) for number in numbers], how, self.base)
            learned: dict[str, Learned] = {}
            for expert in parents:
                heads = self._heads(expert) if expert.labels else {}
                for task in expert.tasks:
                    prototype = self.profile(expert.number).get(task)
                    rows = expert.rows.get(task, 0)
                    learned.setdefault(task, Learned(task=task, n_rows=rows, prototype=prototype, head=heads.get(task)))
            return self._keep(lora, description, tag, list(learned.values()), "merged", numbers, how=vars(how))

    def retire(self, number: int, reason: str = "") -> Expert:
        """Take an expert out of use; its files stay, until `prune`."""
        with self.changing():
            expert = self._store.put(replace(self._in_use(number), status=RETIRED, reason=reason))
            self._store.event("retired", expert=number, reason=reason)
        return expert

    def reinstate(self, number: int) -> Expert:
        """Take a retired expert back into use.

        Raises:
            ConfigError: if it isn't retired: in use, or pruned.
        """
        with self.changing():
            expert = self.expert(number)
            if expert.status != RETIRED:
                retired = [str(one.number) for one in self.records.values() if one.status == RETIRED]
                way_out = f"Retired: {', '.join(retired) or 'none'}"
                raise ConfigError(describe(self._name(expert), "isn't retired", expert.status, way_out))
            expert = self._store.put(replace(expert, status=LIVE, reason=""))
            self._store.event("reinstated", expert=number)
        return expert

    def prune(self, *numbers: int, reason: str = "") -> int:
        """Retire experts, and delete all that isn't in use: the files and prototypes of those retired, now or before,
        earlier weights of those adapted, what a router kept before. Return how many bytes that frees.

        Their records stay. There is no going back to a snapshot that needs what was deleted.
        """
        with self.changing():
            for number in dict.fromkeys(numbers):
                if self.expert(number).status == LIVE:
                    self.retire(number, reason)
            for expert in self.records.values():
                if expert.status == RETIRED:
                    gone = {"status": PRUNED, "files": {}, "prototypes": {}, "earlier": ()}
                    self._store.put(replace(expert, **gone))
                    self._store.event("pruned", expert=expert.number)
                elif expert.earlier:
                    self._store.put(replace(expert, earlier=()))
        with self.changing():
            return self._store.sweep()

    def used(self, number: int, outcome: Any = None) -> Expert:
        """Count that an expert was chosen and, where it is known, keep what came of it (a JSON value)."""
        known = () if outcome is None else (as_json("outcome", outcome),)
        with self.changing():
            expert = self.expert(number)
            outcomes = (*expert.outcomes, *known)
            return self._store.put(replace(expert, uses=expert.uses + 1, outcomes=outcomes))

    def profile(self, number: int) -> dict[str, torch.Tensor]:
        """Return {task: prototype, float32 [dimension]} of an expert."""
        return {task: self._store.row(row).clone() for task, row in self.expert(number).prototypes.items()}

    def add_prototype(self, number: int, task: str, vector: torch.Tensor) -> None:
        """Add the prototype of a task that an expert learned. Those that are there never change.

        Args:
            vector: [dimension], the same for all experts of a library.

        Raises:
            ConfigError: if the expert has one for this task, or the dimension is another.
        """
        with self.changing():
            expert = self.expert(number)
            where = f"{self._name(expert)}: task {task!r}"
            if task in expert.prototypes:
                way_out = "Name the task otherwise; what an earlier one is known by never changes"
                raise ConfigError(describe(where, "has a prototype already", expert.prototypes[task], way_out))
            row = self._store.add_row(checked(vector, self._store.state.dimension, where))
            tasks = tuple(dict.fromkeys((*expert.tasks, task)))
            self._store.put(replace(expert, tasks=tasks, prototypes={**expert.prototypes, task: row}))

    def prototypes(self) -> Prototypes:
        """Return all prototypes of the experts in use, by expert and in the order they were learned."""
        found = [(row, e.number, task) for e in self.experts for task, row in e.prototypes.items()]
        rows = [self._store.row(row) for row, _, _ in found]
        vectors = torch.stack(rows) if rows else torch.zeros(0, self.dimension or 0)
        return Prototypes(vectors, [number for _, number, _ in found], [task for _, _, task in found])

    @property
    def dimension(self) -> int | None:
        """Of all prototypes; None while there is none."""
        return self._store.state.dimension

    @property
    def profiled_with(self) -> dict[str, Any] | None:
        """The settings that its prototypes are measured with, `Signals.settings`; None while they are not told."""
        return self._store.state.profiled_with

    def profile_with(self, settings: Mapping[str, Any]) -> None:
        """Keep the settings that prototypes are measured with, once and for all, so that they can be compared.

        Args:
            settings: a JSON value.

        Raises:
            ConfigError: if there are others, or prototypes that are not known to be made with these.
        """
        settings = as_json("profile_with", dict(settings))
        with self.changing():
            state = self._store.state
            if state.profiled_with == settings:
                return
            if state.profiled_with is not None or state.dimension is not None:
                way_out = "Measure as the library's profiles were, or begin a new library"
                what = f"its profiles were made otherwise: {state.profiled_with or 'with settings unknown'}"
                raise ConfigError(describe(str(self.path), what, settings, way_out))
            self._store.state = replace(state, profiled_with=settings)

    def keep_router(self, value: Any) -> None:
        """Keep what a router has learned, in place of what it had: tensors, and JSON values, in dicts and lists."""
        with self.changing():
            name = self._store.next_name()
            save_value(self.path / "router" / name, value, "router")
            self._store.state = replace(self._store.state, router=name)

    def router(self) -> Any:
        """Return what `keep_router` kept; None where there is nothing yet.

        Raises:
            StateError: if it is damaged.
        """
        name = self._store.state.router
        return None if name is None else load_value(self.path / "router" / name)

    def log(self, event: str, **details: Any) -> None:
        """Put a line into the log; within `changing`, together with the change. Details are JSON values."""
        with self.changing():
            self._store.event(event, **details)

    def events(self) -> list[dict[str, Any]]:
        """Return what happened, oldest first."""
        return read_lines(self.path / "log.jsonl")

    def changing(self) -> AbstractContextManager[None]:
        """Hold the lock; all changes until the block ends happen at one stroke, or not at all if it raises.

        Raises:
            StateError: if another process is changing the library, with its pid.
        """
        return self._store.changing()

    def snapshot(self) -> dict[str, Any]:
        """Return what the library is now, as a JSON value to go back to; about 1 KB an expert, no weights."""
        return self._store.state.as_json()

    def at(self, snapshot: Mapping[str, Any]) -> "Library":
        """Return the library as it was when a snapshot was taken, to look at: it can't be changed through this.

        What it needs and was pruned since is missed when it is read.
        """
        past = Library(self.path)
        past._store.look_at(State.from_json(snapshot))
        return past

    def restore(self, snapshot: Mapping[str, Any], *, forget: bool = False) -> None:
        """Go back to what the library was, or on to what it was again. Nothing happens where it is that already.

        Args:
            forget: what was made since then never was: its files go, and its numbers are given anew. So a run that is
                resumed makes the same experts once more.

        Raises:
            StateError: if what the snapshot needs was pruned.
        """
        state = State.from_json(snapshot)
        with self.changing():
            present = self._store.state
            if not forget:
                state = replace(state, **{name: max(vars(state)[name], vars(present)[name]) for name in _COUNTERS})
            if state == present:
                return
            gone = [e.folder for e in state.experts.values() if e.files and not self._store.folder(e.folder).is_dir()]
            rows = {row for expert in state.experts.values() for row in expert.prototypes.values()}
            if gone or rows - self._store.profiles.rows.keys():
                way_out = "Go back to a later snapshot, or restore the folder from a copy"
                raise StateError(describe(str(self.path), "what was then has been pruned", gone[:4], way_out))
            if forget:  # the change that this is counts for none
                state = replace(state, generation=state.generation - 1)
            self._store.state = state
            self._store.event("restored", experts=len(live(state.experts)), forget=forget)

    def damaged(self) -> dict[int, list[str]]:
        """Return {number: what is wrong} of the experts whose files are missing or of another size.

        Cost: about 25 ms of the processor for 1,000 experts. `problems` compares every byte.
        """
        found = {expert.number: self._store.problems(expert, whole=False) for expert in self.records.values()}
        return {number: problems for number, problems in found.items() if problems}

    def problems(self, number: int) -> list[str]:
        """Return what is wrong with an expert's files, a sentence each; every byte is compared with its checksum."""
        return self._store.problems(self.expert(number), whole=True)

    def folder(self, number: int) -> Path:
        """Return the folder of an expert's weights: a plain peft adapter. Nothing in it may be changed."""
        return self._store.folder(self.expert(number).folder)

    def _in_use(self, number: int) -> Expert:
        expert = self.expert(number)
        if expert.status != LIVE:
            way_out = f"In use: {', '.join(str(e.number) for e in self.experts[:20]) or 'none'}"
            raise ConfigError(describe(self._name(expert), f"is {expert.status}", expert.reason, way_out))
        return expert

    def _check(self, lora: Lora, where: str) -> None:
        """Raise ModelError where a LoRA doesn't fit the base, or the slots that it would be loaded into."""
        lora.check(self.base, where)
        if lora.rank > self.settings.rank:
            way_out = "Merge with svd and a lower rank, or make a library with a higher one"
            raise ModelError(describe(where, f"the library takes ranks up to {self.settings.rank}", lora.rank, way_out))
        beyond = sorted(set(lora.targets) - set(self.settings.targets))
        if beyond:
            way_out = f"It takes {', '.join(self.settings.targets)}; make one with more targets"
            raise ModelError(describe(where, "stands on layers that the library doesn't take", beyond, way_out))

    def _with_tasks(self, expert: Expert, learned: Sequence[Learned]) -> Expert:
        """Return the expert with its tasks, and their prototypes, added."""
        self._store.put(expert)
        for task in learned:
            self._store.put(self.expert(expert.number).having_learned(task))
            if task.prototype is not None:
                self.add_prototype(expert.number, task.task, task.prototype)
        return self.expert(expert.number)

    def _written(self, expert: Expert, lora: Lora, learned: Sequence[Learned], heads: Mapping[str, Head]) -> Expert:
        """Write an expert's folder, with its heads, and note the files."""
        heads = {**heads, **{task.task: task.head for task in learned if task.head is not None}}
        with staged(self._store.folder(expert.folder)) as aside:
            expert = self._store.put(replace(expert, files=write_weights(aside, lora, heads)))
            self._store.write_record(expert, aside)
        return expert

    def _heads(self, expert: Expert) -> dict[str, Head]:
        problems = [problem for problem in self._store.problems(expert, whole=True) if HEADS in problem]
        if problems:
            raise StateError(f"{self._name(expert)}: {problems[0]}")
        return read_heads(self._store.folder(expert.folder), expert.labels)

    def _name(self, expert: Expert) -> str:
        return f"{self.path}: expert {expert.number}"
