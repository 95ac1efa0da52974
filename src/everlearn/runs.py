"""The loop over tasks: learn one, score all seen, record, save; and going on from where a run was stopped."""

import resource
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from accelerate import Accelerator

from everlearn.config import CheckpointConfig, Recipe, load_recipe, write_yaml
from everlearn.errors import Paused, StateError, describe
from everlearn.evaluation.fitting import fit_of
from everlearn.evaluation.score import metric_names, score_task
from everlearn.learners.devices import start_accelerator, start_trackers
from everlearn.models.causal import CausalObjective
from everlearn.models.dtypes import half_trained
from everlearn.models.load import Model, load_model, with_dtype, with_template
from everlearn.models.steps import in_steps
from everlearn.provenance import Provenance, read_begun
from everlearn.record import Recorder, environment
from everlearn.report.items import keep_items
from everlearn.report.results import write_results
from everlearn.seeds import seed_for, seeded
from everlearn.state import (
    beginning_in,
    checkpoints,
    clear_leftovers,
    clear_unnamed,
    load_state,
    pack,
    read_json,
    save_checkpoint,
    save_state,
    unpack,
    write_file,
)
from everlearn.strategy import Strategy, overriding
from everlearn.streams.schedule import Schedule, apply_schedule, checked_stream
from everlearn.types import Cost, Mixture, Score, Step, Task, TaskResult

if TYPE_CHECKING:
    from everlearn.learners.online import Episode


class Listener:
    """Is told how a run goes on; the base only passes on notes. `everlearn.report.progress` draws bars."""

    def encoding(self, task: Task, done: int, n_rows: int) -> None:
        """`done` of the rows that a task will be learned from were turned into tokens."""

    def training(self, task: Task, n_steps: int, done: int) -> None:
        """A task of `n_steps` optimizer steps begins; `done` of them are done (after a resume)."""

    def step(self, done: int, loss: float) -> None:
        """An optimizer step was taken."""

    def scoring(self, task: Task) -> None:
        """A task is about to be scored."""

    def scored(self, score: Score) -> None:
        """A task was scored."""

    def consolidating(self, task: Task) -> None:
        """The strategies consolidate a task."""

    def episode(self, done: int, n_episodes: int, episode: "Episode") -> None:
        """An online learner has answered and learned a problem."""

    def evaluated(self, done: int, accuracy: float) -> None:
        """An online learner was scored on all held-out problems, after `done` episodes."""

    def inform(self, text: str) -> None:
        """Something was decided that the user left open; there is nothing to do about it."""

    def note(self, text: str) -> None:
        """There is something that the user should know; a listener that shows nothing warns."""
        warnings.warn(text, UserWarning, stacklevel=2)


@dataclass
class Run:
    """One model on its way through tasks: what strategies and learners are handed.

    Attributes:
        tasks: {name: task} of all tasks known, in the order of the stream.
        learned: names of the tasks learned, in order; a repeated one stands twice.
        position: number of the step of the schedule, from 0.
        current: name of the task being learned.
        took_part: {strategy: how many tasks had been learned when it last took part in learning one}.
        folder: where checkpoints go, or None to keep none.
        memory: where strategies lay large memories down, in files named by their hash; by default folder/memory.
    """

    model: Model
    learner: Any
    strategies: list[Strategy]
    accelerator: Accelerator
    seed: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    learned: list[str] = field(default_factory=list)
    position: int = 0
    current: str | None = None
    folder: Path | None = None
    memory: Path | None = None
    checkpointing: CheckpointConfig = field(default_factory=CheckpointConfig)
    eval_batch_size: int = 64
    keep_answers: bool = True  # in scores
    listener: Listener = field(default_factory=Listener)
    took_part: dict[str, int] = field(default_factory=dict)
    dormant: dict[str, Any] = field(default_factory=dict)  # state of strategies that learned before and don't now
    context: dict[str, Any] = field(default_factory=dict)  # JSON of the caller's, saved with each checkpoint
    notes: list[str] = field(default_factory=list)  # what the user was told
    pause_requested: bool = False
    when_paused: Callable[[], None] = lambda: None  # wakes whatever waits
    n_logged: int = 0
    until_scored: ExitStack = field(default_factory=ExitStack)
    _saved_at: float = field(default_factory=time.monotonic)
    _steps_since_save: int = 0

    def __post_init__(self) -> None:
        for strategy in self.strategies:
            strategy.check_model((*self.model.traits, *self.learner.traits))
        if self.memory is None and self.folder is not None:
            self.memory = self.folder / "memory"
        if isinstance(self.model.objective, CausalObjective):
            self.model.objective.train_on = self.learner.train_on
            self.model.objective.in_steps = in_steps(self.learner.learn, self.model.objective.wraps)
        device = self.accelerator.device
        if device.type != "cpu":
            self.model.network.to(device)

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.accelerator.num_processes

    @property
    def on_gpu(self) -> bool:
        """Whether tensors live on a GPU."""
        return self.accelerator.device.type == "cuda"

    def learn(self, task: Task, saved: dict[str, Any] | None = None) -> Cost:
        """Learn one task: the hooks around the learner's loop, as printed in `everlearn.strategy`.

        Args:
            task: what to learn; from now on one of `tasks`.
            saved: the state of the learner's loop, to go on in mid-task.
        """
        started = time.perf_counter()
        self.until_scored.close()
        self.tasks.setdefault(task.name, task)
        if isinstance(self.model.objective, CausalObjective):
            task = self.model.objective.in_examples(task)
        self.current = task.name
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        with seeded(seed_for(self.seed, self.position, task.name, self.rank)):
            if saved is None:
                self.add_labels(task)
                for strategy in self.strategies:
                    strategy.adapt_model(self, task)
                for strategy in self.strategies:
                    strategy.begin_task(self, task)
            in_half = half_trained(self.model.adapters.trainable().values())
            if in_half is not None:
                self.note(in_half)
            mixture = Mixture.of(task)
            for strategy in self.strategies:
                mixture = strategy.train_data(mixture, self)
            spent_s = saved["progress"]["elapsed_s"] if saved else 0.0
            progress = self.learner.train(self, task, mixture, saved)
            self.listener.consolidating(task)
            for strategy in reversed(self.strategies):
                strategy.end_task(self, task)
        self.learned.append(task.name)
        self.took_part |= {strategy.name: len(self.learned) for strategy in self.strategies}
        self.current = None
        return Cost(
            train_s=time.perf_counter() - started + spent_s,
            n_steps=progress.index,
            n_tokens=int(self.sum(progress.n_tokens)),
            peak_memory_bytes=self._peak_memory_bytes(),
            learning_rate=progress.learning_rate,
            batch_size=progress.batch_size,
            n_epochs=progress.epoch,
            best_epoch=progress.best_epoch or None,
            mean_loss=self.sum(progress.loss_sum) / progress.index if progress.index else None,
            strategy_bytes={strategy.name: strategy.state_bytes() for strategy in self.strategies},
            strategy_facts={strategy.name: facts for strategy in self.strategies if (facts := strategy.facts())},
        )

    def score(self, task: Task, rows: str = "evaluation") -> Score:
        """Score the model on a task's `evaluation` or `validation` rows; nothing of the model's state changes."""
        self.add_labels(task)
        with seeded(seed_for(self.seed, "score", task.name, rows)), self.ready_for(task):
            self.listener.scoring(task)
            score = score_task(self.model, task, rows, self.accelerator, self.eval_batch_size)
        score = score if self.keep_answers else replace(score, answers=())
        if rows == "evaluation":
            self.listener.scored(score)
        return score

    @contextmanager
    def ready_for(self, task: Task) -> Iterator[None]:
        """Let the strategies make the model ready to answer a task; afterwards it is as it was."""
        self.until_scored.close()
        with self.until_scored:
            for strategy in overriding(self.strategies, "before_eval"):
                strategy.before_eval(self, task)
            yield

    def note(self, text: str) -> None:
        """Tell the user a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)
            if self.rank == 0:
                self.listener.note(text)

    def inform(self, text: str) -> None:
        """Tell the user what was decided for them."""
        if self.rank == 0:
            self.listener.inform(text)

    def inspect(self, task: Task) -> dict[str, dict[str, int]]:
        """Tell what is to be said of a task's rows, such as how many are cut; return the counts by role."""
        fit = fit_of(self.model, task)
        for sentence in (*task.notes, *fit.sentences):
            self.note(sentence)
        return fit.counts

    def add_labels(self, task: Task) -> None:
        """Make room in the model's outputs for a task's classes, once."""
        if task.labels and task.name not in self.model.adapters.task_labels:
            self.model.adapters.do("labels", task=task.name, labels=list(task.labels), seed=self.seed)

    def past_tasks(self) -> list[str]:
        """Return the names of the tasks learned before: the present one is among them where it is learned again."""
        return list(dict.fromkeys(self.learned))

    def learned_without(self, strategy: Strategy) -> list[str]:
        """Return the names of the tasks learned since a strategy last took part, all where it never did.

        What it kept of the weights is older than what these tasks made of them, and must not undo it.
        """
        return self.learned[self.took_part.get(strategy.name, 0) :]

    def encoding(self, task: Task, done: int, n_rows: int) -> None:
        """Tell how many rows were encoded; stop there when a pause was asked for. What is saved lacks nothing then."""
        self.listener.encoding(task, done, n_rows)
        if self.pause_requested and self.world_size == 1:  # several processes stop together, after a step
            raise Paused(str(self.folder))

    def after_step(self, task: Task, learner_state: Callable[[], dict[str, Any]]) -> None:
        """Save in mid-task when it is due, or when a pause was asked for; then stop."""
        self._steps_since_save += 1
        if self.folder is None and not self.pause_requested:
            return
        due = self.checkpointing
        by_steps = due.every_steps is not None and self._steps_since_save >= due.every_steps
        by_time = self.unsaved_for() == 0
        if self.world_size > 1:  # all processes must decide alike; the first one's clock counts
            by_time = bool(self.sum(int(by_time and self.rank == 0)))
            self.pause_requested = bool(self.sum(int(self.pause_requested)))
        if by_steps or by_time or self.pause_requested:
            self.checkpoint({"task": task.name, "learner": learner_state()})
        if self.pause_requested:
            raise Paused(str(self.folder))

    def unsaved_for(self) -> float | None:
        """Return the seconds until steps that were taken are to be saved by time; None where there are none, or never
        by time."""  # fmt: skip
        if self.folder is None or self.checkpointing.every_s is None or not self._steps_since_save:
            return None
        return max(0.0, self._saved_at + self.checkpointing.every_s - time.monotonic())

    def checkpoint(self, training: dict[str, Any] | None = None) -> None:
        """Save all that a resumed run needs. `training`: the task in progress and its learner's state."""
        self._saved_at, self._steps_since_save = time.monotonic(), 0
        if self.folder is None or self.rank != 0:
            return
        tensors: dict[str, torch.Tensor] = {}
        values = pack({**self.state(), "training": training, "context": self.context}, tensors, "run")
        save_checkpoint(self.folder / "checkpoints", tensors, values)

    def restore(self, folder: Path) -> dict[str, Any] | None:
        """Load the newest checkpoint below `folder`; return its `training`, or None between tasks.

        Raises:
            StateError: if it is damaged. The one before it is still there.
        """
        tensors, values = load_state(checkpoints(folder / "checkpoints")[-1])
        values = unpack(values, tensors)
        self.load_state(values)
        self.context = values["context"]
        return values["training"]

    def state(self) -> dict[str, Any]:
        """Return what was learned: structure, weights, strategies."""
        return {
            "structure": self.model.adapters.log,
            "weights": dict(self.model.adapters.tensors()),
            "strategies": {**self.dormant, **{strategy.name: strategy.state() for strategy in self.strategies}},
            "learned": list(self.learned),
            "took_part": dict(self.took_part),
            "position": self.position,
            "seed": self.seed,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned, into a run built from the same recipe."""
        self.model.adapters.replay(state["structure"])
        self.model.adapters.load_tensors(state["weights"])
        self.model.show_batches()
        self.dormant = dict(state["strategies"])
        for strategy in self.strategies:
            if strategy.name in self.dormant:
                strategy.load_state(self.dormant.pop(strategy.name))
        self.learned, self.position = list(state["learned"]), state["position"]
        # states of before don't tell: all strategies count as up to date
        self.took_part = dict(state.get("took_part", dict.fromkeys(state["strategies"], len(self.learned))))

    def sum(self, number: float) -> float:
        """Return the sum of a number over processes."""
        if self.world_size == 1:
            return number
        total = torch.tensor([number], dtype=torch.float64, device=self.accelerator.device)
        torch.distributed.all_reduce(total)
        return total.item()

    def all_reduce(self, tensors: list[torch.Tensor]) -> None:
        """Replace each tensor by its sum over processes."""
        if self.world_size > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def gather(self, value: Any) -> list[Any]:
        """Return each process's value, in order of rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def log(self, losses: dict[str, float], gradient_norm: torch.Tensor | None, step: Step) -> None:
        """Send one step's numbers to the trackers."""
        if not self.accelerator.trackers:
            return
        numbers = {f"loss/{name}": value for name, value in losses.items()}
        numbers["learning_rate"] = step.learning_rate
        if gradient_norm is not None:
            numbers["gradient_norm"] = gradient_norm.item()
        self.n_logged += 1
        self.accelerator.log({f"{step.task.name}/{name}": value for name, value in numbers.items()}, step=self.n_logged)

    def _peak_memory_bytes(self) -> int:
        if self.on_gpu:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(
    recipe: Recipe | str | Path | Mapping[str, Any],
    out: str | Path,
    overrides: Sequence[str] = (),
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Learn a recipe's stream, once a seed, and write results.jsonl and results.json into the new folder `out`.

    Args:
        recipe: a recipe, its YAML file, or its mapping.
        overrides: `a.b=value`, values read as YAML.

    Returns:
        The content of results.json (docs/results-schema.md); empty on all processes but the first.

    Raises:
        ConfigError, StreamError, ModelError: before anything is trained. TrainingError: if the loss is not finite.
        Paused: after SIGINT, the state saved; `resume` goes on.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    listener = listener or Listener()
    model = with_dtype(with_template(recipe.model), recipe.device, listener.note)
    recipe = replace(recipe, model=model)
    out = Path(out)
    with beginning_in(out):
        return _go(recipe, out, listener)


def resume(out: str | Path, listener: Listener | None = None) -> dict[str, Any]:
    """Go on with a run that was paused or killed, from its newest checkpoint, to the same end as if it never stopped.

    Raises:
        StateError: if there is no run, its state is damaged, or its rows or its model's files are others now.
    """
    out = Path(out)
    if not (out / "recipe.yaml").exists():
        way_out = "Name the folder of a run; everlearn run starts a new one"
        raise StateError(describe("resume", "there is no run in the folder", str(out), way_out))
    if is_finished(out):
        return read_json(out / "results.json")
    return _go(load_recipe(out / "recipe.yaml"), out, listener or Listener())


def run_or_resume(
    recipe: Recipe | str | Path | Mapping[str, Any],
    out: str | Path,
    overrides: Sequence[str] = (),
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Go on with the run in the folder `out` if one was begun there, else `run` the recipe."""
    if (Path(out) / "recipe.yaml").exists():
        return resume(out, listener)
    return run(recipe, out, overrides, listener)


def is_finished(out: Path) -> bool:
    """Tell whether the folder holds a run that came to its end."""
    return (out / "results.json").exists() and read_json(out / "results.json")["complete"]


def _go(recipe: Recipe, out: Path, listener: Listener) -> dict[str, Any]:
    track = tuple(recipe.track)
    learner = recipe.build_learner()
    accelerator = start_accelerator(
        precision=learner.precision, device=recipe.device, processes=recipe.processes, track=track, folder=out
    )
    main = accelerator.is_main_process
    recorder = Recorder(out / "results.jsonl", active=main)
    tasks, schedules = open_schedules(recipe)
    made_of = Provenance.of(tasks, recipe.model)
    saved = checkpoints(out / "checkpoints")
    if saved:
        made_of.check_same(read_begun(out / "results.jsonl"))
    context = load_state(saved[-1])[1]["context"] if saved else {"seed_number": 0, "n_bytes": 0}
    accelerator.wait_for_everyone()  # all have looked into the folder before the first one writes
    if main:
        clear_leftovers(out)
    if not saved:
        if main:
            write_file(out / "recipe.yaml", write_yaml(asdict(recipe)).encode())
            (out / "results.jsonl").unlink(missing_ok=True)
        steps = {str(seed): [task.name for task in schedule.steps] for seed, schedule in schedules.items()}
        recorder.header(asdict(recipe), environment(accelerator.device), steps, made_of.model)
    else:
        recorder.cut(context["n_bytes"])
    start_trackers(accelerator, out, {"recipe": write_yaml(asdict(recipe))}, track)
    for number, (seed, schedule) in enumerate(schedules.items()):
        if number < context["seed_number"]:
            continue
        tasks = list(schedule.stream)
        one = Run(
            model=load_model(recipe.model, tasks, seed),
            learner=learner,
            strategies=recipe.build_strategies(),
            accelerator=accelerator,
            seed=seed,
            tasks={task.name: task for task in tasks},
            folder=out,
            checkpointing=recipe.checkpoint,
            eval_batch_size=recipe.evaluation.batch_size,
            keep_answers=recipe.evaluation.answers,
            listener=listener,
            context={"seed_number": number, "n_bytes": recorder.n_bytes()},
        )
        if not saved and number == 0:
            _tell_of_data(one, made_of, recorder)
        with pause_on_interrupt(one):
            going_on = bool(saved) and number == context["seed_number"]
            _learn_schedule(one, schedule, recipe, recorder, resumed=going_on)
        _keep_final(one, out)
        if one.pause_requested and number + 1 < len(schedules):
            raise Paused(str(out))
    if track:
        accelerator.end_training()
    return write_results(out) if main else {}


def _tell_of_data(one: Run, made_of: Provenance, recorder: Recorder) -> None:
    """Tell the user what there is to know of a run's rows, and write down what they are."""
    for record in made_of.data:
        n_told = len(one.notes)
        counts = one.inspect(one.tasks[record["task"]])
        recorder.data({**record, "counts": counts, "notes": one.notes[n_told:]})
    one.context["n_bytes"] = recorder.n_bytes()


def _learn_schedule(one: Run, schedule: Schedule, recipe: Recipe, recorder: Recorder, *, resumed: bool) -> None:
    """Learn the steps of one seed's schedule, scoring after each; begin with what the newest checkpoint holds."""
    training, begin = None, 0
    if one.keep_answers and one.rank == 0:
        keep_items(one.folder, one.seed, schedule.stream)
    if resumed:
        training = one.restore(one.folder)
        begin = one.position
    elif recipe.evaluation.future:
        _score_all(one, list(schedule.stream), -1, None, recorder)
        one.context["n_bytes"] = recorder.n_bytes()
    for position in range(begin, len(schedule.steps)):
        task = schedule.steps[position]
        one.position = position
        if not (resumed and position == begin and training is None):
            cost = one.learn(task, training["learner"] if training else None)
            one.context["cost"] = asdict(cost)
            training = None
            one.checkpoint()
            if one.rank == 0:
                saved = [*checkpoints(one.folder / "checkpoints"), *(one.folder / "final").glob("seed-*")]
                clear_unnamed(one.memory, saved)
        started = time.perf_counter()
        seen = list(dict.fromkeys(step.name for step in schedule.steps[: position + 1]))
        scored = [t for t in schedule.stream if recipe.evaluation.future or t.name in seen]
        _score_all(one, scored, position, task.name, recorder)
        cost = replace(Cost(**one.context["cost"]), eval_s=time.perf_counter() - started)
        recorder.cost(one.seed, position, task.name, cost)
        one.context["n_bytes"] = recorder.n_bytes()


def _score_all(one: Run, tasks: list[Task], after: int, trained: str | None, recorder: Recorder) -> None:
    for task in tasks:
        if one.pause_requested:
            raise Paused(str(one.folder))
        score = one.score(task)
        recorder.result(TaskResult(one.seed, after, trained, score))
        if one.accelerator.trackers:
            one.accelerator.log({f"score/{task.name}": score.value, "after": after}, step=one.n_logged)


def open_schedules(recipe: Recipe) -> tuple[list[Task], dict[int, Schedule]]:
    """Return the tasks that a recipe learns, with all their rows, and each seed's schedule.

    Where the order is shuffled, it and the rows that `per_task` takes differ by seed.

    Raises:
        StreamError, ConfigError: if rows can't be read, a task trains on what another is measured on, or a metric
            doesn't fit its task.
    """
    options = recipe.schedule_options()
    stream = checked_stream(recipe.build_stream().build(), options.get("order"))
    if options.get("shuffle"):
        schedules = {seed: apply_schedule(stream, **options, seed=seed) for seed in recipe.all_seeds()}
    else:
        schedules = dict.fromkeys(recipe.all_seeds(), apply_schedule(stream, **options))
    learned = {task.name for task in next(iter(schedules.values())).stream}
    tasks = [task for task in stream if task.name in learned]
    for task in tasks:
        metric_names(task)
    return tasks, schedules


def _keep_final(one: Run, out: Path) -> None:
    """Keep the seed's final state: what export and a later comparison need."""
    folder = out / "final" / f"seed-{one.seed}"
    if one.rank != 0 or folder.exists():
        return
    folder.parent.mkdir(exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    values = pack(one.state(), tensors, "run")
    save_state(folder, tensors, values)


@contextmanager
def pause_on_interrupt(one: Run) -> Iterator[None]:
    """Let the first Ctrl-C ask for a pause at the next step; a second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        one.pause_requested = True
        one.when_paused()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
