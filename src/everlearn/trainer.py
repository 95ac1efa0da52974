"""The engine from Python: teach a model one task after another, without a recipe or a stream known beforehand."""

import time
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from everlearn.config import build, build_learner, build_strategies, from_mapping, listed
from everlearn.errors import ConfigError, EverlearnError, StreamError, check_choice, describe, nearest
from everlearn.evaluation.gain import answer_likelihood
from everlearn.evaluation.predict import asked_row, predict
from everlearn.evaluation.score import metric_names
from everlearn.evaluation.surest import surest_tasks
from everlearn.experts.rows import predict_rows
from everlearn.learners.budget import AUTO
from everlearn.learners.devices import start_accelerator, start_trackers
from everlearn.learners.sft import SupervisedLearner
from everlearn.listener import Listener
from everlearn.models.given import Given
from everlearn.models.load import Model, ModelConfig, load_model
from everlearn.models.plain import is_plain
from everlearn.models.targets import fit_task
from everlearn.record import environment
from everlearn.report.records import Run as Log
from everlearn.spelling import learner_options, strategies_of
from everlearn.state import make_folder
from everlearn.strategy import Strategy, overriding
from everlearn.streams.apart import Apart
from everlearn.streams.labels import with_labels
from everlearn.streams.loading import TaskOptions
from everlearn.streams.sampled import let_go
from everlearn.streams.sampling import select_rows
from everlearn.trainer_inputs import listener_for, model_source, read_task
from everlearn.trainer_results import Measured, TaskScores, TrainerMetrics, draw, metrics_of, told_of_gain
from everlearn.trainer_saving import (
    ROWS,
    Collate,
    card_of,
    card_of_model,
    card_of_strategy,
    check_same_frozen,
    config_of,
    read_trainer,
    sizes_of,
    strategy_of,
    task_of,
    write_trainer,
)
from everlearn.trainer_untaught import Untaught
from everlearn.types import Rows, Score, Task, TensorRows
from everlearn.way import Run

SCORED = ("all", "task")  # after a task was learned


class ContinualTrainer:
    """Teaches one model task after task.

    Args:
        model: `pocket`, `smollm2`, a folder, a GGUF file, a hub id, a ModelConfig or its mapping; or a model that is
            loaded, trained in place: a plain `nn.Module` (all weights), a model of transformers (as by its name: LoRA)
            or a peft model (its own adapter). What is frozen in it stays so, and costs no strategy anything; so do
            submodules in evaluation mode (a frozen BatchNorm), where the module itself is in training mode.
        strategies: names, mappings with a name and options, or strategy objects; a list of them, or one alone.
        learner: options of the supervised learner, such as {"epochs": 5, "batch_size": 16}. Without epochs a task is
            learned for as many as its rows need.
        config: the same in the usual spelling: {"optimizer": {"type": "adam", "lr": 0.001},
            "continual_strategy": {"packnet": {"enabled": True, "prune_percentage": 0.75}, "lwf": {"alpha": 0.5}},
            "training": {learner options}}. See `everlearn.spelling` for the names.
        tokenizer: of a loaded model; without one, that of the folder or hub id that it came from.
        model_options: of a loaded model, what a `ModelConfig` says beside how it is loaded: {"adapter": {"name":
            "full"}, "head": "shared", "max_length": 512}.
        seed: of adapters, heads and the order of rows.
        device: auto, cpu or cuda.
        progress: whether bars are drawn; None: where stdout is a terminal. Without them, notes are warnings.
        listener: is told how it goes on, in place of the bars.
        evaluate_after: all, so that after each task all learned so far are scored, which fills the accuracy matrix: t
            scorings after the t-th task. Or task: the new one alone; `evaluate_all_tasks` fills the newest row.
        evaluate_before: score each task before it is learned too, by the model as it is and as it came: forward
            transfer. The model is then loaded once more for each task; one that was handed over is copied at the start.
        keep_answers: whether scores hold what was answered to each item, and reports what was asked; for private data,
            False.
        folder: where trackers, and strategies that keep rows on disk, write to.
        track: tensorboard, wandb, mlflow.

    Raises:
        ConfigError: if an option is unknown or out of range.
    """

    def __init__(
        self,
        model: str | Path | nn.Module | ModelConfig | Mapping[str, Any] = "pocket",
        strategies: str | Mapping[str, Any] | Strategy | Sequence[str | Mapping[str, Any] | Strategy] = (),
        learner: Mapping[str, Any] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        model_options: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "auto",
        progress: bool | None = None,
        listener: Listener | None = None,
        evaluate_after: str = "all",
        evaluate_before: bool = False,
        keep_answers: bool = True,
        folder: str | Path | None = None,
        track: str | Sequence[str] = (),
    ):
        options = {"epochs": AUTO, **learner_options(config or {}), **(learner or {})}
        self._learner: SupervisedLearner = build_learner(options)
        self._strategies = build_strategies([*listed(strategies), *strategies_of(config or {})])
        self._source = model_source(model, tokenizer, model_options)
        self._model: Model | None = None
        self._sizes: TensorRows | None = None  # of the rows that a plain module was built for
        self._seed = seed
        self._device = device
        check_choice("evaluate_after", evaluate_after, SCORED)
        self._evaluate_after = evaluate_after
        self._evaluate_before = evaluate_before
        self._untaught: Untaught | None = None
        self._keep_answers = keep_answers
        self._folder = None if folder is None else Path(folder)
        self._track = (track,) if isinstance(track, str) else tuple(track)
        if self._track and self._folder is None:
            raise ConfigError(describe("track", "there is no folder to write to", self._track, "Pass folder=..."))
        self._listener = listener or listener_for(progress)
        self._run: Run | None = None
        self._apart = Apart()
        self._measured = Measured()

    @property
    def run(self) -> Run:
        """The run behind the trainer: model, tasks, strategies."""
        if self._run is None:
            raise ConfigError(describe("ContinualTrainer", "no task was learned yet", None, "Call train_task first"))
        return self._run

    @property
    def source(self) -> ModelConfig | Given:
        """What the model is loaded from, or the one that was handed over."""
        return self._source

    @property
    def learned(self) -> list[str]:
        """The names of the tasks learned, in order, each once."""
        return [] if self._run is None else list(dict.fromkeys(self._run.learned))

    @property
    def strategies(self) -> list[Strategy]:
        """The strategies that take part."""
        return list(self._strategies)

    @property
    def _taught(self) -> Run:
        """The run, once it has learned a task."""
        if not self.run.learned:
            what, way_out = "no task was learned to its end yet", "Call train_task again"
            raise ConfigError(describe("ContinualTrainer", what, list(self.run.tasks), way_out))
        return self.run

    def train_task(
        self,
        name: str | None = None,
        train: str | Path | Rows | None = None,
        evaluate: str | Path | Rows | None = None,
        *,
        validation: str | Path | Rows | None = None,
        train_loader: DataLoader | None = None,
        val_loader: DataLoader | None = None,
        task_id: int | None = None,
        task_name: str | None = None,
        num_epochs: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Score | None:
        """Learn one task and score it. A task that doesn't fit is refused before anything is trained.

        Where the right answers to the evaluation rows are no likelier than before, a note says so.

        Args:
            name, task_name: what to call it; without one, `task_<task_id>`, by default the number of tasks before it.
            train, evaluate, validation: JSONL, CSV or Parquet files, or rows in memory. Without `evaluate` a fifth of
                the training rows is held out. `validation` is for early stopping; where that can act (more epochs than
                its patience), a tenth is held out for it beside the fifth.
            train_loader: for plain modules: a DataLoader of batches (x, y) of tensors. Its batches are those that are
                trained on, an epoch after another: its sampler, batch_size, drop_last and collate_fn hold (its workers
                don't: see the learner's). Its sampler draws by the trainer's seed, or by its own generator. Its rows
                must come out of collate_fn in their order; they stay in the dataset until a batch, or a method, takes
                them. An IterableDataset is read once into memory. Strategies that make a mixture of their own (joint,
                cumulative, gdumb) take its rows in an order of their own.
            val_loader: what the task is measured on: the rows of one pass, which are held in memory.
            num_epochs: instead of the learner's.
            options: how files are read: `load_task`'s options, such as {"columns": {"prompt": "question"}}. Of them
                `allow_overlap` holds for loaders too: rows to train on may be evaluation items of this task or another.

        Targets of tensors: classes are whole numbers from 0, of any type, [n] or [n, 1], or one-hot rows of whole
        numbers; real numbers are regression if they have the output's shape, and classes if they are whole and the
        module has several outputs. Inputs of another float type than the module's are converted.

        Returns:
            The score on the evaluation items, or None where there are none.

        Raises:
            StreamError: if data is missing, bad, or does not fit the model; or if a row is trained on that any task
                learned here is measured on, or the other way round. ConfigError, ModelError: if the model can't learn
                such a task. TrainingError: if the loss is not finite.
        """
        n_known = len(self._run.tasks) if self._run is not None else 0
        name = name or task_name or f"task_{task_id if task_id is not None else n_known}"
        learner = _changed(self._learner, {} if num_epochs is None else {"epochs": num_epochs})
        chosen: TaskOptions = from_mapping(TaskOptions, dict(options or {}), "options")
        task, batch_size = read_task(
            name, replace(chosen, wants_validation=learner.uses_validation), learner.most_epochs,
            (self._seed, len(self._run.learned) if self._run is not None else 0), train=train, evaluate=evaluate,
            validation=validation, train_loader=train_loader, val_loader=val_loader,
        )  # fmt: skip
        if len(task.evaluation):
            metric_names(task)
        apart, shared = self._apart.with_task(task)
        task = self._fitted(replace(task, notes=(*task.notes, *shared)))
        run = self._prepare(_changed(learner, {} if batch_size is None else {"batch_size": batch_size}))
        with self._shown():
            known = dict(run.tasks)
            run.position = len(run.learned)
            run.tasks[task.name] = task
            try:
                run.inspect(task)
                before = answer_likelihood(run, task) if len(task.evaluation) else None
                untaught = self._score_before(task) if len(task.evaluation) and task.name not in known else {}
                cost = run.learn(task)
            except (EverlearnError, KeyboardInterrupt):
                run.tasks, run.current = known, None
                raise
            self._apart = apart
            task = run.tasks[task.name] = let_go(task, rows=not any(one.rereads for one in run.strategies))
            self._measured.add_task(task, cost)
            self._measured.scores |= untaught
            score = self._score_after(task)
            if before is not None:
                after = answer_likelihood(run, task)
                told = told_of_gain(score, before, after, cost, known=name in known)
                if told is not None:
                    run.note(told)
        return score

    def admitted(self, task: Task) -> Task:
        """Return a task with its training rows alone, those that no task learned here is measured on; its labels are
        numbered as when it was learned."""  # fmt: skip
        task = self._fitted(replace(task, evaluation=[], validation=None))
        kept = self._apart.unmeasured(task)
        return task if len(kept) == len(task.train) else replace(task, train=select_rows(task.train, kept))

    def use(self, strategy: Strategy) -> None:
        """Let a strategy take part from the next task on, in place of one of its name where there is one.

        Raises:
            ConfigError: if it can't stand beside the others, or is unsuited for the model.
        """
        others = [one for one in self._strategies if one.name != strategy.name]
        strategies = build_strategies([*others, strategy])
        if self._run is not None:
            self._run.use(strategies)
        self._strategies = strategies

    def _score_before(self, task: Task) -> dict[tuple[int, str], Score]:
        """Return the scores on a task before it is learned, where asked for: by the model as it came, and as it is."""
        if self._untaught is None:
            return {}
        place = len(self.run.learned) - 1
        scores = {(place, task.name): self.run.score(task)}
        if place >= 0:
            scores[-1, task.name] = self._untaught.score(self.run, replace(task, train=self._sizes or task.train))
        return scores

    def _score_after(self, task: Task) -> Score | None:
        """Score what is to be scored after a task was learned; return its own score."""
        started = time.perf_counter()
        score = None
        for one in self._measured_tasks():
            if one is task:
                score = self._measured.learned[task.name] = self._score(one)
            elif self._evaluate_after == "all":
                self._score(one)
        cost = self._measured.costs[-1]
        self._measured.costs[-1] = replace(cost, eval_s=time.perf_counter() - started)
        return score

    def evaluate(self, task: str) -> Score:
        """Score the model as it is now on the evaluation items of one task learned."""
        known = self._known(task, [one.name for one in self._measured_tasks()])
        with self._shown():
            return self._score(known)

    def evaluate_all_tasks(self) -> TaskScores:
        """Score the model as it is now on the evaluation items of every task learned."""
        with self._shown():
            now = {task.name: self._score(task) for task in self._measured_tasks()}
        return TaskScores(now, dict(self._measured.learned))

    def predict(
        self, rows: Any, task: str | None = None, *, max_new_tokens: int | None = None
    ) -> list[Any] | torch.Tensor:
        """Return the model's answers to rows: texts, label names, tags, or a plain module's outputs.

        Args:
            rows: without answers, as the task has them; see `everlearn.evaluation.predict`.
            task: as which task they are answered; by default the last one learned, where tasks don't differ in their
                head, mask or adapter. Where they do, each row is answered as `tasks_of` says, which is told.
            max_new_tokens: of a text, at most.

        Raises:
            ConfigError: if the task is unknown, or must be named. StreamError: if a row lacks what the task asks with.
        """
        answering = self.answering(task)
        if len(answering) == 1:
            return predict(self._taught, answering[0], rows, max_new_tokens)
        chosen = self.tasks_of(rows)
        shown = ", ".join(f"{name} {n}" for name, n in Counter(chosen).items())
        self._taught.inform(f"No task was named; rows are answered as by the {self._chooser}: {shown}.")
        return predict_rows(self._taught, lambda *_: chosen, rows)

    def tasks_of(self, rows: Sequence[Any]) -> list[str]:
        """Return as which of the tasks learned each row is answered where none is named.

        With strategy experts its router chooses, by what a row asks; else the task whose head is surest of its answer.

        Raises:
            ConfigError: if it can't be told: of a plain module's rows, of numbers, of texts under masks of their own.
            StreamError: if a row lacks what a task asks with.
        """
        run, tasks = self._taught, self.answering()
        if routing := overriding(run.strategies, "nearest_tasks"):
            asked = [asked_row(tasks[0], number, row) for number, row in enumerate(rows)]
            return routing[0].nearest_tasks(run, asked)
        if not self._own_heads():
            way_out = f"Name it: {', '.join(one.name for one in tasks)}"
            what = "each task answers with a head, mask or adapter of its own"
            raise ConfigError(describe("predict", what, None, way_out))
        return surest_tasks(run, tasks, rows)

    def answering(self, task: str | None = None) -> list[Task]:
        """Return the tasks as which a row may be answered: the one of this name; else all, or one where all are alike.

        Raises:
            ConfigError: if it is unknown.
        """
        run = self._taught
        names = run.past_tasks()
        if task is None and self._answers_differ():
            return [run.tasks[name] for name in names]
        return [self._known(task or run.learned[-1], names)]

    def metrics(self) -> TrainerMetrics:
        """Return average accuracy, backward transfer, forgetting and learning accuracy, with 95% intervals.

        They are over the tasks that have evaluation rows, up to the newest step after which all of these were scored.
        """
        return metrics_of(self._log())

    def plot(self, folder: str | Path) -> Path:
        """Write report.html and its pictures into a folder; return the path of the page.

        The folder holds results.jsonl and results.json too, as a run's does: `everlearn compare` takes it.

        Raises:
            ConfigError: if the folder can't be made, or holds a run.
        """
        name = " + ".join(strategy.name for strategy in self._strategies) or "plain"
        shown = self._measured_tasks() if self._keep_answers else []
        return draw(self._log(), name, shown, Path(folder))

    def save(self, folder: str | Path) -> None:
        """Keep all that `load` needs to go on: weights, what strategies learned, each task's evaluation items, scores.

        The folder may hold earlier states: the newest two stay, and a crash leaves the one before. What was trained on
        is kept as hashes, and as rows where a strategy learns from them again (cumulative, what replay keeps).

        Raises:
            ConfigError: if no task was learned yet; if a library of experts lies in another folder. StateError: if the
                folder can't be written.
        """
        run, folder = self._taught, Path(folder)
        apart = [strategy.name for strategy in run.strategies if strategy.encloses]
        if apart and folder != self._folder:
            way_out = f"Save it there: ContinualTrainer(folder={str(folder)!r}, ...)"
            what = f"what {apart[0]} keeps lies in the trainer's own folder"
            raise ConfigError(describe("ContinualTrainer.save", what, self._folder and str(self._folder), way_out))
        rereads = any(strategy.rereads for strategy in run.strategies)
        values = {
            "model": card_of_model(self._source, run.model),
            "sizes": None if self._sizes is None else {"x": self._sizes.x, "y": self._sizes.y},
            "learner": asdict(self._learner),
            "strategies": [card_of_strategy(strategy) for strategy in self._strategies],
            "seed": self._seed,
            "evaluate_after": self._evaluate_after,
            "untaught": None if self._untaught is None else self._untaught.state(run.model),
            "keep_answers": self._keep_answers,
            "run": run.state(),
            "notes": list(run.notes),
            "n_logged": run.n_logged,
            "tasks": [card_of(task, folder, with_training=rereads) for task in run.tasks.values()],
            "apart": self._apart.state(),
            "measured": self._measured.state(),
        }
        write_trainer(folder, values, run.memory)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        model: str | nn.Module | None = None,
        tokenizer: Any = None,
        collate_fn: Collate | None = None,
        device: str = "auto",
        progress: bool | None = None,
        listener: Listener | None = None,
        track: str | Sequence[str] = (),
    ) -> "ContinualTrainer":
        """Return the trainer that was saved into a folder; it goes on as the one that was saved would, bit for bit.

        Args:
            model: where the trainer was given a module, one like it: of its shape, and with the weights that it had in
                what is frozen. Else where the model lies now, by default where it did.
            tokenizer: of a module, where the trainer was given one.
            collate_fn: of the data loaders, where rows that differ in shape need it.
            device, progress, listener, track: as for a new trainer; trackers write into the folder.

        Raises:
            StateError: if no trainer is there, or it is damaged. ModelError, ConfigError: if the model isn't the one.
        """
        folder = Path(folder)
        saved = read_trainer(folder)
        strategies = [strategy_of(card, number) for number, card in enumerate(saved["strategies"])]
        trainer = cls(
            strategies=strategies, learner=saved["learner"], seed=saved["seed"], device=device, progress=progress,
            listener=listener, evaluate_after=saved["evaluate_after"], keep_answers=saved["keep_answers"],
            evaluate_before=saved.get("untaught") is not None, folder=folder, track=track,
        )  # fmt: skip
        trainer._source = config_of(saved["model"], model, tokenizer)
        tasks = {card["name"]: task_of(card, folder, collate_fn) for card in saved["tasks"]}
        if saved["sizes"] is not None:
            trainer._sizes = TensorRows(**saved["sizes"])
        sized = [replace(task, train=trainer._sizes or task.train) for task in tasks.values()]
        if trainer._evaluate_before:
            trainer._untaught = Untaught.of(trainer._source, saved["untaught"])
        trainer._model = load_model(trainer._source, sized, trainer._seed, device)
        run = trainer._prepare(trainer._learner)
        run.load_state(saved["run"])
        check_same_frozen(saved["model"], run.model)
        run.tasks, run.notes, run.n_logged = tasks, list(saved["notes"]), saved["n_logged"]
        trainer._apart = Apart.from_state(saved["apart"], tasks)
        trainer._measured = Measured.from_state(saved["measured"])
        return trainer

    def close(self) -> None:
        """End the trackers, so that all is written; happens by itself when the trainer is no longer used."""
        if self._run is not None and self._track:
            self._end_tracking()

    def _known(self, task: str, names: Sequence[str]) -> Task:
        if task not in names:
            way_out = f"{nearest(task, names)}Tasks: {', '.join(names)}"
            raise ConfigError(describe("task", "was not learned, or has no evaluation rows", task, way_out))
        return self.run.tasks[task]

    def _measured_tasks(self) -> list[Task]:
        """Return the tasks learned that have evaluation rows."""
        run = self._taught
        return [run.tasks[name] for name in run.past_tasks() if len(run.tasks[name].evaluation)]

    def _score(self, task: Task) -> Score:
        run = self.run
        score = run.score(task)
        self._measured.add_score(score)
        if run.accelerator.trackers:
            after = len(run.learned) - 1
            run.accelerator.log({f"score/{task.name}": score.value, "after": after}, step=run.n_logged)
        return score

    def _answers_differ(self) -> bool:
        """Tell whether it makes a difference as which task a row is answered."""
        return self._own_heads() or bool(overriding(self.run.strategies, "before_eval"))

    def _own_heads(self) -> bool:
        """Tell whether each task has its own head, or its own label words."""
        model = self.run.model
        in_words = model.kind == "causal" and bool(model.adapters.task_labels)
        return in_words or (model.kind in ("classify", "tag") and model.adapters.head_mode == "task")

    @property
    def _chooser(self) -> str:
        return "router of their experts" if overriding(self.run.strategies, "nearest_tasks") else "head that is surest"

    def _log(self) -> Log:
        """Return what was measured as a run's log."""
        run, source = self._taught, self._source
        settings = {
            "model": asdict(source.config if isinstance(source, Given) else source),
            "learner": asdict(self._learner),
            "strategies": [card_of_strategy(strategy) for strategy in self._strategies],
            "seed": self._seed,
        }
        return self._measured.log(tuple(run.learned), self._seed, settings, environment(run.accelerator.device))

    def _shown(self) -> AbstractContextManager[Any]:
        """Return what draws the bars meanwhile."""
        return self._listener if isinstance(self._listener, AbstractContextManager) else nullcontext()

    def _fitted(self, task: Task) -> Task:
        """Return the task as the model can learn it, which is loaded for the first one.

        Raises:
            StreamError, ConfigError, ModelError: if it can't.
        """
        model = self._model
        if model is not None and not model.takes(task):
            known = next(iter(self._run.tasks.values())).kind if self._run and self._run.tasks else model.kind
            what = f"is of kind {task.kind}; this trainer's model was loaded for {known} tasks"
            way_out = "Teach it to another ContinualTrainer, with a model of its own"
            raise StreamError(describe(f"task {task.name!r}", what, model.name, way_out))
        if model is None:
            self._untaught = Untaught.of(self._source) if self._evaluate_before else None
            model = load_model(self._source, [task], self._seed, self._device)
            if isinstance(self._source, ModelConfig) and is_plain(self._source.name):
                self._sizes = sizes_of(task.train)
        known = model.adapters.task_labels.get(task.name)
        if known is not None and task.labels:
            task = with_labels(task, known)
        if task.kind == "tensor":
            task = fit_task(task, model)
        self._model = model
        return task

    def _prepare(self, learner: SupervisedLearner) -> Run:
        if self._run is None:
            folder, track = self._folder, self._track
            accelerator = start_accelerator(
                precision=learner.precision, device=self._device, track=track, folder=folder
            )
            if track:
                make_folder(folder)
                start_trackers(accelerator, folder, {"seed": self._seed}, track)
                self._end_tracking = weakref.finalize(self, accelerator.end_training)
            self._run = Run(
                self._model, learner, self._strategies, accelerator, seed=self._seed, listener=self._listener,
                memory=None if folder is None else folder / ROWS, keep_answers=self._keep_answers,
                library=None if folder is None else folder / "library",
            )  # fmt: skip
        self._run.learner = learner
        return self._run


def _changed(learner: SupervisedLearner, changes: dict[str, Any]) -> SupervisedLearner:
    return build("learner", {"name": "sft", **asdict(learner), **changes}, "learner")
