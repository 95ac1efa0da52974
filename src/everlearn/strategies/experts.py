"""A library of experts: for each task one that is there answers, or learns on, or a new one is made."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from everlearn.config import from_mapping
from everlearn.errors import ConfigError, check_choice, check_number, describe
from everlearn.experts import Learned, Library, Slots
from everlearn.experts.composing import arrow_helps, compose
from everlearn.experts.decisions import (
    decision_sentence,
    is_untrained,
    nearest_of,
    outcome_sentence,
    read_decision,
    without_router,
)
from everlearn.experts.heads import has_head, head_of, lend_head
from everlearn.experts.judging import as_good, can_hold_out, held_out
from everlearn.experts.lora import Lora
from everlearn.experts.opening import open_to_go_on, open_to_learn, passing_place, place_of
from everlearn.experts.router import Candidate, Decision, RouterConfig
from everlearn.experts.routing import keep_router, known_of, router_of, signals_of
from everlearn.experts.rows import nearest_tasks
from everlearn.experts.signals import SignalConfig, Signals
from everlearn.experts.signals.passes import chosen
from everlearn.experts.tidying import TidyConfig, carry_out, findings
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.seeds import seed_for
from everlearn.strategy import ADDS_LAYERS, Strategy, learned
from everlearn.streams.sampling import select_rows
from everlearn.types import Examples, Group, Mixture, Rows, Score, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_STRUCTURE = "it changes what a LoRA is made of, and experts are swapped in and out of one LoRA that stays as it is"
_OWN = "it keeps what each task learned by itself, which the library does"
_ALL = "it learns all tasks in one set of weights, and experts keep them apart"


@register("strategy", "experts")
@dataclass
class Experts(Strategy):
    """Keep a library of LoRA experts beside the frozen base; a router decides for each task which one is to answer it.

    Before a task its signals are measured with the base alone (`everlearn.experts.signals`), and the router compares
    them with those of the tasks that experts have learned. It lets an expert answer the task as it is (reuse: no
    training), learn on (adapt: held by the methods beside this one, which keep a state for each expert), begin a new
    expert (fork), several answer together (compose), or a new expert begin from nothing (create). A task that is
    learned again adapts its own expert. Each decision is a line in the library's log, with its cost and what came of
    it. What no expert has learned is answered by the base.

    Args:
        share_first: how many tasks at first learn in one LoRA.
        router: of `everlearn.experts.router.RouterConfig`, such as {threshold: 0.6}.
        signals: of `everlearn.experts.signals.SignalConfig`, such as {k_examples: 8}.
        margin: by how much a new expert may be better and reusing one still be right, in the task's metric.
        compose: how many experts answer together, at most, with router: {compose: true}.
        compose_by: weights: their sum, weighted once for the task, fitted on `k_examples` rows. arrow: each token, in
            each layer, goes to those that it suits best, and no row is asked but to see that it beats the base.
        max_loaded: experts that the model holds at most.
        descriptions: {task: what it is, in words}; by default what the task itself says, or its name.
        tidy: of `everlearn.experts.tidying.TidyConfig`, such as {every: 10}: experts that came to be alike become one,
            where that answers as well on the validation rows of all their tasks. By default never.
        oracle: {task: its skill}, for router: {similarity: oracle}: the right expert is that of the first task with the
            same skill, or of the task that has this name. A task that isn't named needs a new one.

    Cost: before a task two passes over `k_examples` rows (its own, and the validation rows that it is known by later),
    a backward pass down to the upper third; after it one scoring of the validation rows, or of a tenth of the training
    rows, kept out of training for that, by the new expert and one by the nearest. On the disk one LoRA an expert. In
    the state, what methods beside it keep, once for each expert.

    Source: none published for the whole; the origin is a notebook on Gemma-2B. Routing by profiles of tasks: LoRAuter
    (arXiv 2601.21795); composing without gradients: LoraHub (Huang et al. 2023, arXiv 2307.13269).
    Departs: see docs/adaptive.md.
    Reproduces: not verified; our results stand in docs/adaptive.md.
    """

    share_first: int = 0
    router: dict[str, Any] = field(default_factory=dict)
    signals: dict[str, Any] = field(default_factory=dict)
    margin: float = 0.02
    compose: int = 2
    compose_by: str = "weights"
    max_loaded: int = 8
    descriptions: dict[str, str] = field(default_factory=dict)
    tidy: dict[str, Any] = field(default_factory=dict)
    oracle: dict[str, str] = field(default_factory=dict)

    library_: dict = learned(dict)  # what the library is: a snapshot
    experts_: dict = learned(dict)  # task -> the expert that answers it
    composed_: dict = learned(dict)  # task -> [experts, weights] where several do; no weights: by arrow
    beside_: dict = learned(dict)  # number of an expert -> {strategy: its state}
    decision_: dict = learned(dict)  # on the present task, or the last one
    prototype_: torch.Tensor | None = learned(lambda: None)  # of the present task
    n_steps_: int = learned(int)  # optimizer steps taken for it
    folder_: str = learned(str)  # of the library where the run has none

    encloses: ClassVar[bool] = True
    unsuited: ClassVar[dict[str, str]] = {
        "full": "an expert is a LoRA, and here all weights are trained",
        "prompt": NO_LAYERS,
        "soft_prompt": "an expert is a LoRA, and here prompts are trained beside it",
        "new_tokens": "an expert is a LoRA, and here embeddings are trained beside it",
        "fresh": "its files lack weights (a pooler's, say) that experts would share and each change; save it with them",
        "tensor": "a plain module reads no description of a task",
        "shared_head": "later tasks add classes to the head that all tasks answer by; use model.head: task",
        "trainer": ADDS_LAYERS,
        "online": "it looks at a task's rows before they are learned, and problems come one by one",
        "rollouts": "a task is known by its right answers, and rollouts have none",
        "preferences": "a task is known by its right answers, and preferences have none",
    }
    conflicts: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("inclora", "olora", "inflora", "aflora", "grow", "pnn", "hat", "packnet"), _STRUCTURE),
        **dict.fromkeys(("l2p", "progressive_prompts"), "its prompts are no part of an expert"),
        "separate": _OWN,
        **dict.fromkeys(("joint", "cumulative", "gdumb", "merge"), _ALL),
        **dict.fromkeys(("frozen", "seq_star"), "it freezes the LoRA that experts are made of"),
    }

    def __post_init__(self) -> None:
        check_number("experts.share_first", self.share_first, low=0)
        check_number("experts.margin", self.margin, low=0, high=1)
        check_number("experts.compose", self.compose, low=2)
        check_choice("experts.compose_by", self.compose_by, ("weights", "arrow"))
        check_number("experts.max_loaded", self.max_loaded, low=1)
        for name in ("descriptions", "oracle"):
            _check_texts(f"experts.{name}", vars(self)[name])
        self._router_config = from_mapping(RouterConfig, self.router, "experts.router")
        self._tidy_config = from_mapping(TidyConfig, self.tidy, "experts.tidy")
        self._signal_config = from_mapping(SignalConfig, self.signals, "experts.signals")
        self._slots: Slots | None = None
        self._measures: Signals | None = None
        self._library: Library | None = None  # to change; None: it is only looked at
        self._trying: AbstractContextManager | None = None  # lets another than the task's own expert answer

    def adapt_model(self, run: "Run", task: Task) -> None:
        if run.processes.size > 1:
            way_out = "Start it without torchrun"
            raise ConfigError(describe("strategy 'experts'", "learns in one process", run.processes.size, way_out))
        self._check_tidy(run)
        library = self._to_change(run, begins=True)
        with library.changing():
            self._take_over(run)
            decision = self._decide(run, task, library)
        if decision.action == "compose":
            decision = self._compose(run, task, decision, library)
        begins = None if decision.action == "compose" or decision.trial else decision.expert
        self._slots.begin(begins, seed_for(run.seed, "experts", library.snapshot()["next_expert"]))
        if begins is not None:
            lend_head(library, decision, run.model.adapters, task)
        self._bring_in(run, begins if decision.action in ("adapt", "reuse") else None)
        self.decision_, self.n_steps_, self.library_ = decision.as_json(), 0, library.snapshot()
        self._set_apart(run)
        run.inform(f"{task.name}: {decision_sentence(decision)}")

    def train_data(self, mixture: Mixture, run: "Run") -> Mixture:
        decision, (own,) = self._decision, mixture.groups[0].parts
        self._set_apart(run)
        if is_untrained(decision):
            return Mixture((Group(()), *mixture.groups[1:]))
        out = set(self._held_out(run, own.task, own.rows))
        if not out:
            return mixture
        rows = select_rows(own.rows, [i for i in range(len(own.rows)) if i not in out])
        return Mixture((replace(mixture.groups[0], parts=(Examples(own.task, rows),)), *mixture.groups[1:]))

    def after_step(self, step: Step) -> None:
        self.n_steps_ += 1

    def end_task(self, run: "Run", task: Task) -> None:
        decision, library = self._decision, self._to_change(run)
        score, was_right = self._judge(run, task, decision, library)
        with library.changing():
            if is_untrained(decision) or (decision.trial and was_right is not False):
                number = decision.expert  # where it was tried, what there is does as well: the new one isn't kept
                if decision.trial:
                    lend_head(library, decision, run.model.adapters, task)
                if number is not None:
                    library.used(number, None if was_right is None else {"task": task.name, "right": was_right})
            else:
                number = self._keep(run, task, decision, score)
            if decision.tau is not None:
                router = router_of(library, self._router_config, run.seed)
                router.learned(decision, was_right)
                keep_router(library, router)
            came_of = {"task": task.name, "answers": number, "steps": self.n_steps_, "reuse_was_right": was_right}
            library.log("decided", **decision.as_json(), **came_of)
        if number is not None:
            self.experts_[task.name] = number
            self.composed_.pop(task.name, None)
        if number is not None and not (decision.trial and number == decision.expert):
            states = {other.name: other.state() for other in self._others(run)}
            self.beside_[str(number)] = {name: state for name, state in states.items() if state}
        self.decision_ |= came_of
        run.inform(f"{task.name}: {outcome_sentence(decision, number, was_right)}")
        if self._tidy_config.every and (run.position + 1) % self._tidy_config.every == 0:
            self._tidy(run, library)
        self.library_, self.prototype_ = library.snapshot(), None

    def before_eval(self, run: "Run", task: Task) -> None:
        if self._trying is not None:
            run.until_scored.enter_context(self._trying)
        elif self.library_ and task.name != run.current:
            slots = self._to_look_at(run)
            if task.name in self.composed_:
                numbers, weights = self.composed_[task.name]
                if weights is None:
                    run.until_scored.enter_context(slots.arrow(*numbers))
                else:
                    run.until_scored.enter_context(slots.composed(*numbers))(weights)
            else:
                run.until_scored.enter_context(slots.answering(self.experts_.get(task.name)))

    def lay_in(self, run: "Run", task: Task) -> None:
        if task.name in self.composed_:
            experts, weights = self.composed_[task.name]
            numbers = ", ".join(map(str, experts))
            if weights is None:
                what = "experts answer it token by token, which is no single adapter"
                raise ConfigError(
                    describe(f"task {task.name!r}", what, numbers, "Compose by weights, or learn it anew")
                )
            way_out = f"everlearn experts merge LIBRARY {numbers.replace(',', '')} --kind cat makes one of them"
            raise ConfigError(describe(f"task {task.name!r}", "several experts answer it", numbers, way_out))
        if self.library_ and task.name in self.experts_:
            self._to_look_at(run).begin(self.experts_[task.name], run.seed)

    def nearest_tasks(self, run: "Run", rows: Rows) -> list[str]:
        """Return the task that each row is nearest to, of those that experts have learned, by what the row asks alone.

        See `everlearn.experts.rows`; signals: {text_inputs: true} lets tasks be known by their rows, too.
        """
        library = self._to_look_at(run).library
        self._measures = self._measures or signals_of(library, run.model)
        return nearest_tasks(library, self._measures, rows)

    def facts(self) -> dict[str, Any]:
        """Return the decision on the task and what came of it, and how many experts there are."""
        n_experts = sum(expert["status"] == "live" for expert in self.library_.get("experts", ()))
        return {"n_experts": n_experts, **self.decision_} if self.decision_ else {}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self._library = self._slots = None

    @property
    def _decision(self) -> Decision:
        return read_decision(self.decision_)

    def _description(self, task: Task) -> str:
        return self.descriptions.get(task.name) or task.description or task.name

    def _place(self, run: "Run") -> Path:
        place = place_of(run)
        if place is None:
            self.folder_ = self.folder_ or str(passing_place())
            place = Path(self.folder_)
        return place

    def _to_change(self, run: "Run", *, begins: bool = False) -> Library:
        """Return the library as the state says that it is; the slots are filled from it."""
        if self._library is None and begins:
            rank = _rank_of(run) * (self.compose if self._router_config.compose else 1)
            self._library = open_to_learn(
                run, self._place(run), self.library_, rank=rank, max_loaded=self.max_loaded
            )  # fmt: skip
        elif self._library is None:
            self._library = open_to_go_on(run, self._place(run), self.library_)
        self._slots = self._slots or Slots(run.model, self._library)
        self._slots.library = self._library
        return self._library

    def _to_look_at(self, run: "Run") -> Slots:
        """Return the slots, to be filled with the experts that the state knows of; nothing on the disk changes."""
        if self._slots is None:
            self._slots = Slots(run.model, Library.open(self._place(run), run.model).at(self.library_))
        return self._slots

    def _others(self, run: "Run") -> list[Strategy]:
        return [strategy for strategy in run.strategies if strategy is not self]

    def _take_over(self, run: "Run") -> None:
        """Let what was learned without this method become an expert, which goes on answering these tasks."""
        names = list(dict.fromkeys(run.learned_without(self)))
        if not names:
            return
        told = [Learned(task=name, head=head_of(run.model.adapters, name)) for name in names]
        made = self._library.add(self._slots.trained(), f"learned before: {', '.join(names)}", learned=told)
        self.experts_ |= dict.fromkeys(names, made.number)
        self.beside_[str(made.number)] = {other.name: copy.deepcopy(other.state()) for other in self._others(run)}

    def _decide(self, run: "Run", task: Task, library: Library) -> Decision:
        """Measure the task's signals and return what is done about it."""
        self._measures = self._measures or Signals(run.model, self._signal_config)
        self._measures.bind(library)
        what, later = self._description(task), task.validation or task.train
        vector = self._measures.of(what, task, task.train)
        # the base alone is asked, so that it is the same before the training as after it
        self.prototype_ = vector if later is task.train else self._measures.of(what, task, later)
        if task.name in self.experts_:
            return without_router("adapt", self.experts_[task.name], "It learns more of a task of its own.")
        if 0 < len(self.experts_) < self.share_first:
            first = next(iter(self.experts_.values()))
            return without_router("adapt", first, f"The first {self.share_first} tasks learn in one LoRA.")
        router, uses = router_of(library, self._router_config, run.seed), {e.number: e.uses for e in library.experts}
        of_its_skill = (name for name in self.experts_ if self.oracle.get(name, name) == self.oracle.get(task.name))
        alike = next(of_its_skill, None)

        def able(expert: int, learned: str) -> bool:
            return has_head(library, expert, learned, run.model.adapters, task)

        right = None if alike is None or not able(self.experts_[alike], alike) else self.experts_[alike]
        decision = router.decide(vector, known_of(library, len(vector)), uses, true_expert=right, able=able)
        if decision.action == "reuse" and not decision.candidates:  # it was told
            nearest = Candidate(right, alike, 1.0, None, None, uses[right], {})
            decision = replace(decision, candidates=(nearest,))
        if decision.trial and not (task.validation or can_hold_out(task.train)):
            reason = f"{decision.reason} There are too few rows to try it on."
            decision = replace(decision, trial=False, reason=reason)
        return decision

    def _compose(self, run: "Run", task: Task, decision: Decision, library: Library) -> Decision:
        """Fit how much each candidate counts on the task's examples; what turns out to be one expert, or none, is."""
        best = {candidate.expert: candidate.similarity for candidate in reversed(decision.candidates)}
        nearest = sorted(best, key=best.get, reverse=True)[: self.compose]
        rows = chosen(task, task.train, self._signal_config.k_examples, self._signal_config.seed)
        lend_head(library, decision, run.model.adapters, task)
        if self.compose_by == "arrow":
            if not arrow_helps(run, self._slots, task, rows, nearest):
                reason = "The nearest, token by token, answer no better than the base."
                return replace(decision, action="create", expert=None, reason=reason)
            self.composed_[task.name] = [nearest, None]
            return replace(decision, expert=None)
        found = compose(run, self._slots, task, rows, {number: best[number] for number in nearest})
        if not found:
            reason = "No sum of the nearest answers better than the base."
            return replace(decision, action="create", expert=None, reason=reason)
        if list(found.values()) == [1.0]:
            reason = "One alone answers better than several."
            return replace(decision, action="reuse", expert=next(iter(found)), reason=reason)
        self.composed_[task.name] = [list(found), list(found.values())]
        return replace(decision, expert=None)

    def _set_apart(self, run: "Run") -> None:
        """Let the methods beside this one count as past only what the expert in training has learned."""
        decision = self._decision
        own = {decision.expert} if decision.action in ("adapt", "reuse") and not decision.trial else set()
        run.apart = frozenset(name for name in run.learned if self.experts_.get(name) not in own)

    def _bring_in(self, run: "Run", number: int | None) -> None:
        """Give the methods beside this one what they kept for an expert; None: for a new one, nothing."""
        kept = self.beside_.get(str(number), {})
        for other in self._others(run):
            other.load_state({**replace(other).state(), **copy.deepcopy(kept.get(other.name, {}))})

    def _held_out(self, run: "Run", task: Task, rows: Rows) -> list[int]:
        """Return which training rows are kept out, to judge a new expert by beside the nearest; mostly none."""
        return [] if task.validation or not self._decision.candidates else held_out(run, task, rows)

    def _judge(self, run: "Run", task: Task, decision: Decision, library: Library) -> tuple[Score | None, bool | None]:
        """Return what was trained scores on validation rows, and whether reusing the nearest would have been right.

        None: not known.
        """
        rows = task.validation or select_rows(task.train, self._held_out(run, task, task.train))
        if is_untrained(decision) or not len(rows):
            return None, None
        judged, near = replace(task, validation=rows), nearest_of(decision)
        score = run.score(judged, "validation")
        if near is None or not has_head(library, near.expert, near.task, run.model.adapters, task):
            return score, None
        own = head_of(run.model.adapters, task.name)
        try:
            lend_head(library, decision, run.model.adapters, task)
            reused = self._scored(run, judged, self._slots.answering(near.expert))
        finally:
            if own is not None:
                own.copy_to(run.model.adapters, task.name)
        return score, as_good(reused.outcomes, score.outcomes, self.margin)

    def _scored(self, run: "Run", task: Task, by: AbstractContextManager) -> Score:
        """Return how validation rows are answered by another than the task's own expert."""
        self._trying = by
        try:
            return run.score(task, "validation")
        finally:
            self._trying = None

    def _tidy(self, run: "Run", library: Library) -> None:
        """Let one expert answer for two that came to be alike, where validation rows of all their tasks allow it."""
        tasks: dict[int, list[Task]] = {}
        for name, number in self.experts_.items():
            tasks.setdefault(number, []).append(run.tasks[name])
        bound = {number for numbers, _ in self.composed_.values() for number in numbers}
        whole = {n: of for n, of in tasks.items() if n not in bound and all(task.validation for task in of)}

        def ask(task: Task, by: Lora | int) -> Sequence[float]:
            return self._scored(run, task, self._slots.answering(by)).outcomes

        for finding in list(findings(library, whole, ask, self._tidy_config)):
            if finding.good:
                names = [task.name for number in finding.pair.experts for task in whole[number]]
                heads = {name: head for name in names if (head := head_of(run.model.adapters, name))}
                self.experts_ |= dict.fromkeys(names, carry_out(library, finding, heads))
            run.inform(finding.sentence())

    def _check_tidy(self, run: "Run") -> None:
        """Raise ConfigError where experts can't be tidied while this run learns."""
        if not self._tidy_config.every:
            return
        where, way_out = "experts.tidy: every", "Leave it out"
        keeping = [other.name for other in self._others(run) if other.state()]
        if keeping:
            raise ConfigError(describe(where, "a method beside it keeps a state for each expert", keeping, way_out))
        if run.library is not None:
            what = "asks validation rows of earlier tasks, which a library that outlives its runs has none of"
            way_out = f"{way_out}; everlearn experts tidy LIBRARY --rows FOLDER asks rows that you give"
            raise ConfigError(describe(where, what, self._tidy_config.every, way_out))

    def _keep(self, run: "Run", task: Task, decision: Decision, score: Score | None) -> int:
        """Put what was trained into the library and return its number."""
        library, lora = self._library, self._slots.trained()
        adapted = decision.expert if decision.action == "adapt" else None
        is_known = adapted is not None and task.name in library.expert(adapted).prototypes
        learned = Learned(
            task=task.name, n_rows=len(task.train) - len(self._held_out(run, task, task.train)), score=score,
            prototype=None if is_known else self.prototype_, head=head_of(run.model.adapters, task.name),
        )  # fmt: skip
        if adapted is not None:
            heads = {name: head_of(run.model.adapters, name) for name in library.expert(adapted).labels}
            return library.adapt(adapted, lora, learned, {n: head for n, head in heads.items() if head}).number
        parents = [decision.expert] if decision.action == "fork" else []
        what, origin = self._description(task), "forked" if parents else "created"
        made = library.add(lora, what, tag=task.name, learned=[learned], origin=origin, parents=parents)
        return made.number


def _check_texts(where: str, texts: Any) -> None:
    """Raise ConfigError unless these are texts of tasks, none empty."""
    for task, text in texts.items() if isinstance(texts, Mapping) else [(None, None)]:
        if not isinstance(task, str) or not isinstance(text, str) or not text.strip():
            got = {task: text} if isinstance(texts, Mapping) else texts
            raise ConfigError(describe(where, "gives a task no text", got, "Write {task: a few words}"))


def _rank_of(run: "Run") -> int:
    """Return the rank of the LoRA in training; 1 where there is none, which `Slots` refuses."""
    done = dict(run.model.adapters.log)
    return done["lora"]["rank"] if "lora" in done else 1
