"""The engine from Python: teach a model one task after another, without a recipe or a stream known beforehand."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from everlearn.config import build, build_strategies, from_mapping
from everlearn.errors import ConfigError, EverlearnError, StreamError, describe
from everlearn.evaluation.gain import NOTHING, WORSE, answer_likelihood, is_known, verdict_on
from everlearn.evaluation.score import metric_names
from everlearn.learners.budget import AUTO
from everlearn.learners.devices import start_accelerator
from everlearn.learners.sft import SupervisedLearner
from everlearn.models.given import Given, check_options
from everlearn.models.load import Model, ModelConfig, load_model, network_kind
from everlearn.models.targets import fit_task
from everlearn.runs import Listener, Run
from everlearn.spelling import learner_options, strategies_of
from everlearn.strategy import Strategy
from everlearn.streams.apart import Apart
from everlearn.streams.labels import with_labels
from everlearn.streams.loaders import read_loader
from everlearn.streams.loading import TaskOptions, build_task
from everlearn.types import Rows, Score, Task


@dataclass(frozen=True)
class TaskScores(Mapping):
    """Scores now, by task; and right after each task was learned, so that what was lost shows. Prints as a table."""

    now: dict[str, Score]
    learned: dict[str, Score]

    def __getitem__(self, task: str) -> Score:
        return self.now[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)

    def average(self) -> float:
        """Return the mean of the scores over tasks."""
        return sum(score.value for score in self.now.values()) / len(self.now)

    def __str__(self) -> str:
        table = Table("task", "metric", "when learned", "now", "95% interval", "n")
        for name, score in self.now.items():
            interval = "–" if score.low is None else f"{score.low:.3f} to {score.high:.3f}"
            cells = (score.metric, f"{self.learned[name].value:.3f}", f"{score.value:.3f}", interval, str(score.n))
            table.add_row(name, *cells)
        console = Console(width=100, color_system=None)
        with console.capture() as capture:
            console.print(table)
        return capture.get().rstrip()


class ContinualTrainer:
    """Teaches one model task after task.

    Args:
        model: `pocket`, `smollm2`, a folder, a GGUF file, a hub id, a ModelConfig or its mapping; or a model that is
            loaded, trained in place: a plain `nn.Module` (all weights), a model of transformers (as by its name: LoRA)
            or a peft model (its own adapter). What is frozen in it stays so, and costs no strategy anything; so do
            submodules in evaluation mode (a frozen BatchNorm), where the module itself is in training mode.
        strategies: names, mappings with a name and options, or strategy objects.
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

    Raises:
        ConfigError: if an option is unknown or out of range.
    """

    def __init__(
        self,
        model: str | nn.Module | ModelConfig | Mapping[str, Any] = "pocket",
        strategies: Sequence[str | Mapping[str, Any] | Strategy] = (),
        learner: Mapping[str, Any] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        model_options: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "auto",
        listener: Listener | None = None,
    ):
        options = {"epochs": AUTO, **learner_options(config or {}), **(learner or {})}
        self._learner: SupervisedLearner = build("learner", {"name": "sft", **options}, "learner")
        self._strategies = build_strategies([*strategies, *strategies_of(config or {})])
        self._model_config = _model_config(model, tokenizer, model_options)
        self._model: Model | None = None
        self._seed = seed
        self._device = device
        self._listener = listener or Listener()
        self._run: Run | None = None
        self._apart = Apart()
        self._learned_scores: dict[str, Score] = {}

    @property
    def run(self) -> Run:
        """The run behind the trainer: model, tasks, strategies."""
        if self._run is None:
            raise ConfigError(describe("ContinualTrainer", "no task was learned yet", None, "Call train_task first"))
        return self._run

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
                must come out of collate_fn in their order. An IterableDataset is read once into memory. Strategies
                that make a mixture of their own (joint, cumulative, gdumb) take its rows in an order of their own.
            val_loader: what the task is measured on: the rows of one pass.
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
        batch_size = None
        learner = _changed(self._learner, {} if num_epochs is None else {"epochs": num_epochs})
        chosen: TaskOptions = from_mapping(TaskOptions, dict(options or {}), "options")
        chosen = replace(chosen, wants_validation=learner.uses_validation)
        if train_loader is not None:
            task, batch_size = self._from_loaders(name, train_loader, val_loader, learner.most_epochs)
            task = replace(task, allow_overlap=chosen.allow_overlap)
        elif train is not None:
            task = build_task(name, train, evaluate, validation, chosen)
        else:
            way_out = "Pass train=FILE or rows, or train_loader=a DataLoader"
            raise StreamError(describe(f"train_task {name!r}", "has nothing to train on", train, way_out))
        if len(task.evaluation):
            metric_names(task)
        apart, shared = self._apart.with_task(task)
        task = self._fitted(replace(task, notes=(*task.notes, *shared)))
        run = self._prepare(_changed(learner, {} if batch_size is None else {"batch_size": batch_size}))
        known = dict(run.tasks)
        run.position = len(run.learned)
        run.tasks[task.name] = task
        try:
            run.inspect(task)
            before = answer_likelihood(run, task) if len(task.evaluation) else None
            cost = run.learn(task)
        except EverlearnError:
            run.tasks, run.current = known, None
            raise
        self._apart = apart
        if before is None:
            return None
        score = self._learned_scores[name] = run.score(task)
        after = answer_likelihood(run, task)
        verdict = verdict_on(before, after, before, after, known=name in known)
        if verdict in (NOTHING, WORSE) and not is_known(score):
            run.note(
                f"Task {name!r}: nothing was learned. The log-likelihood of the right answers to its evaluation rows "
                f"was {before.value:.3g} nats each, and is {after.value:.3g}, after {cost.n_epochs} epochs at learning "
                f"rate {cost.learning_rate:g}. Try another rate, more epochs, or more rows."
            )
        return score

    def evaluate_all_tasks(self) -> TaskScores:
        """Score the model as it is now on the evaluation items of every task learned."""
        run = self.run
        now = {name: run.score(run.tasks[name]) for name in self._learned_scores}
        return TaskScores(now, dict(self._learned_scores))

    def _from_loaders(
        self, name: str, train_loader: DataLoader, val_loader: DataLoader | None, n_epochs: int
    ) -> tuple[Task, int | None]:
        """Return the task behind data loaders, and their batch size where they have one."""
        place = len(self._run.learned) if self._run is not None else 0
        train, loader = read_loader("train_loader", train_loader, n_epochs, self._seed, place, name)
        evaluation: Rows = train[:0]
        if val_loader is not None:
            evaluation, _ = read_loader("val_loader", val_loader, 1, self._seed, place, name)
        batch_size = train_loader.batch_size if isinstance(train_loader, DataLoader) else None
        return Task(name, "tensor", train, evaluation, loader=loader), batch_size

    def _fitted(self, task: Task) -> Task:
        """Return the task as the model can learn it, which is loaded for the first one.

        Raises:
            StreamError, ConfigError, ModelError: if it can't.
        """
        model = self._model
        if model is not None and network_kind([task]) != model.kind:
            what = f"is of kind {task.kind}; this trainer's model was loaded for {model.kind} tasks"
            way_out = "Teach it to another ContinualTrainer, with a model of its own"
            raise StreamError(describe(f"task {task.name!r}", what, model.name, way_out))
        if model is None:
            model = load_model(self._model_config, [task], self._seed, self._device)
        known = model.adapters.task_labels.get(task.name)
        if known is not None:
            task = with_labels(task, known)
        if task.kind == "tensor":
            task = fit_task(task, model)
        self._model = model
        return task

    def _prepare(self, learner: SupervisedLearner) -> Run:
        if self._run is None:
            accelerator = start_accelerator(precision=learner.precision, device=self._device)
            self._run = Run(
                self._model, learner, self._strategies, accelerator, seed=self._seed, listener=self._listener
            )  # fmt: skip
        self._run.learner = learner
        return self._run


def _changed(learner: SupervisedLearner, changes: dict[str, Any]) -> SupervisedLearner:
    return SupervisedLearner(**{**{f.name: vars(learner)[f.name] for f in fields(learner)}, **changes})


def _model_config(
    model: str | nn.Module | ModelConfig | Mapping[str, Any], tokenizer: Any, options: Mapping[str, Any] | None
) -> ModelConfig | Given:
    if isinstance(model, nn.Module):
        source = model.config.name_or_path if isinstance(model, PreTrainedModel | PeftModel) else ""
        check_options(options or {})
        named = {"name": source or type(model).__name__, **(options or {})}
        return Given(model, tokenizer, from_mapping(ModelConfig, named, "model_options"))
    for name, value in (("tokenizer", tokenizer), ("model_options", options)):
        if value is not None:
            way_out = "Leave it out: the model's own is loaded" if name == "tokenizer" else "Put them into model={...}"
            raise ConfigError(describe(name, "is for a model that is loaded", type(value).__name__, way_out))
    if isinstance(model, str):
        return ModelConfig(model)
    if isinstance(model, Mapping):
        return from_mapping(ModelConfig, model, "model")
    return model
