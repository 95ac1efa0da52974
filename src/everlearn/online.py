"""Online runs: problems come one after another; each is answered, learned, answered again; held-out ones are scored.

The engine is that of `everlearn.runs`: a stretch of episodes is a task, with the hooks of every strategy around it.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from everlearn.config import CheckpointConfig, build, build_strategies, read_config, read_yaml, write_yaml
from everlearn.errors import ConfigError, Paused, StateError, StreamError, check_number, describe
from everlearn.learners.devices import start_accelerator
from everlearn.learners.drift import DriftConfig, Reaction
from everlearn.learners.online import Arriving, Episode, OnlineLearner
from everlearn.models.export import save_trained, unknown_layers
from everlearn.models.load import ModelConfig, load_model
from everlearn.record import JsonLines, environment
from everlearn.report.online_results import EPISODES, EVALUATIONS, write_online_results
from everlearn.runs import Listener, Run, pause_on_interrupt
from everlearn.state import checkpoints, clear_leftovers, is_leftover, load_state, read_json, write_file
from everlearn.streams.source import Source, content_of
from everlearn.types import Row, Task

STREAM = "stream"  # the task's name where the stream isn't divided by type
BY_TYPE = "type"


@dataclass(frozen=True)
class HeldOutConfig:
    """n: problems that are never learned from; interval: episodes between two scorings; batch_size: scored at once."""

    n: int = 200
    interval: int = 20
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name in ("n", "interval", "batch_size"):
            check_number(f"evaluation.{name}", vars(self)[name], low=1)


@dataclass(frozen=True)
class OnlineRecipe:
    """All that an online run needs.

    source: names a registered source of problems, arena unless told otherwise, and gives its options.
    episodes: how many problems, at most. boundary: after how many of them the strategies consolidate (a task ends); or
        type: where the problems' type changes. drift: how drift is noticed, and what follows.
    keep_checkpoints: of the adapters saved at each scoring, the newest so many are kept.
    """

    source: dict[str, Any] = field(default_factory=lambda: {"name": "arena"})
    model: ModelConfig = field(default_factory=ModelConfig)
    learner: OnlineLearner = field(default_factory=OnlineLearner)
    strategies: list[str | dict[str, Any]] = field(default_factory=list)
    episodes: int = 80
    boundary: int | str = 10
    drift: DriftConfig | None = None
    evaluation: HeldOutConfig = field(default_factory=HeldOutConfig)
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(every_s=30.0))
    keep_checkpoints: int = 5
    seed: int | None = None
    seeds: list[int] = field(default_factory=list)
    device: str = "auto"

    def __post_init__(self) -> None:
        check_number("episodes", self.episodes, low=1)
        check_number("keep_checkpoints", self.keep_checkpoints, low=1)
        if isinstance(self.boundary, str) and self.boundary != BY_TYPE:
            raise ConfigError(describe("boundary", "is unknown", self.boundary, "Give a number of episodes, or type"))
        if not isinstance(self.boundary, str):
            check_number("boundary", self.boundary, low=1)
        if self.seed is not None and self.seeds:
            raise ConfigError(describe("seeds", "stands beside seed", self.seeds, "Write one of the two"))
        if len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(describe("seeds", "repeat", self.seeds, "Give each seed once"))
        self.build_source()
        build_strategies(self.strategies)

    def all_seeds(self) -> list[int]:
        """Return the seeds to run."""
        return self.seeds or [self.seed or 0]

    def build_source(self) -> Source:
        """Return the source of problems, its options checked."""
        return build("source", {"name": "arena", **self.source}, "source")

    def build_learner(self) -> OnlineLearner:
        """Return a new learner, which has seen nothing yet."""
        options = {name: value for name, value in vars(self.learner).items() if not name.endswith("_")}
        return OnlineLearner(**options)


def load_online_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> OnlineRecipe:
    """Return the recipe in a YAML file (or mapping), with `a.b=value` overrides; strict, as `load_recipe` is."""
    return read_config(OnlineRecipe, source, overrides)


def run_online(recipe: OnlineRecipe, out: str | Path, listener: Listener | None = None) -> dict[str, Any]:
    """Learn online, once a seed, in the new folder `out`.

    Writes episodes.jsonl (a line an episode), evaluations.jsonl (a line a scoring), results.json, and the trained
    adapters as `checkpoint_ep<N>`, which peft loads (docs/online.md).

    Returns:
        The content of results.json.

    Raises:
        ConfigError, ModelError: before anything is learned. StreamError: also where a problem is one of those held out.
        TrainingError: if the loss is not finite. Paused: after SIGINT, the state saved; `resume_online` goes on.
    """
    out = Path(out)
    if out.exists() and any(not is_leftover(entry) for entry in out.iterdir()):
        way_out = f"Go on with it: everlearn resume {out}; or name a new folder"
        raise ConfigError(describe("out", "the folder is not empty", str(out), way_out))
    out.mkdir(parents=True, exist_ok=True)
    return _go(recipe, out, listener or Listener())


def resume_online(out: str | Path, listener: Listener | None = None) -> dict[str, Any]:
    """Go on with an online run that was paused or killed, to the same end as if it never stopped."""
    out = Path(out)
    if not is_online(out):
        way_out = "Name the folder of an online run"
        raise StateError(describe("resume", "there is no online run in the folder", str(out), way_out))
    if (out / "results.json").exists() and read_json(out / "results.json")["complete"]:
        return read_json(out / "results.json")
    return _go(load_online_recipe(out / "recipe.yaml"), out, listener or Listener())


def is_online(folder: Path) -> bool:
    """Tell whether a folder holds an online run."""
    recipe = folder / "recipe.yaml"
    return recipe.exists() and "source" in read_yaml(recipe)


def _go(recipe: OnlineRecipe, out: Path, listener: Listener) -> dict[str, Any]:
    accelerator = start_accelerator(precision=recipe.learner.precision, device=recipe.device)
    if accelerator.num_processes > 1:
        way_out = "Start it without torchrun"
        raise ConfigError(describe("online", "learns in one process", accelerator.num_processes, way_out))
    clear_leftovers(out)
    saved = checkpoints(out / "checkpoints")
    done = load_state(saved[-1])[1]["context"]["seed_number"] if saved else 0
    source = recipe.build_source()
    held_out = source.held_out(recipe.evaluation.n)
    for seed in recipe.all_seeds():
        check_separate(source, held_out, seed, recipe.episodes)
    if not saved:
        write_file(out / "recipe.yaml", write_yaml(_as_mapping(recipe)).encode())
        for name in (EPISODES, EVALUATIONS):
            write_file(out / name, b"")
        header = {"recipe": _as_mapping(recipe), "env": environment(accelerator.device)}
        items = [{"type": row.get("type", ""), "difficulty": row.get("difficulty")} for row in held_out]
        JsonLines(out / EVALUATIONS).append({"type": "header", **header, "items": items})
    for number, seed in enumerate(recipe.all_seeds()):
        if number < done:
            continue
        tasks = _tasks(recipe, source, held_out)
        one = Run(
            model=load_model(recipe.model, tasks, seed),
            learner=recipe.build_learner(),
            strategies=build_strategies(recipe.strategies),
            accelerator=accelerator,
            seed=seed,
            tasks={task.name: task for task in tasks},
            folder=out,
            checkpointing=recipe.checkpoint,
            eval_batch_size=recipe.evaluation.batch_size,
            listener=listener,
        )
        session = Session(one, recipe, source, held_out, number)
        with pause_on_interrupt(one):
            session.go(resumed=bool(saved) and number == done)
    return write_online_results(out)


def check_separate(source: Source, held_out: Sequence[Row], seed: int, n_episodes: int) -> None:
    """Raise StreamError if a held-out problem is among those to be learned, as far as they are known beforehand.

    Every problem is looked at again when it comes.
    """
    contents = {content_of(row) for row in held_out}
    feed = source.feed(seed, n_episodes)
    for row in feed.known(n_episodes):
        _check_row(row, contents)


def _check_row(row: Row, held_out: set[str]) -> None:
    if content_of(row) in held_out:
        way_out = "Take it out of the problems to learn from, or hold out others"
        raise StreamError(describe("online", "a held-out problem comes up for learning", row["prompt"], way_out))


def _tasks(recipe: OnlineRecipe, source: Source, held_out: Sequence[Row]) -> list[Task]:
    """Return the held-out problems as tasks: one a type where the stream is divided by type, else one."""
    by_name: dict[str, list[Row]] = {}
    for row in held_out:
        by_name.setdefault(row["type"] if recipe.boundary == BY_TYPE else STREAM, []).append(row)
    return [
        Task(
            name=name, kind="prompt", train=[], evaluation=rows,
            verifier=source.verifier, max_new_tokens=source.max_new_tokens,
        )
        for name, rows in by_name.items()
    ]  # fmt: skip


def _as_mapping(recipe: OnlineRecipe) -> dict[str, Any]:
    content = asdict(recipe)
    content["learner"].pop("moments_")
    return content


class Session:
    """One seed's episodes: what comes next, where a task ends, and what is written down."""

    def __init__(self, run: Run, recipe: OnlineRecipe, source: Source, held_out: Sequence[Row], seed_number: int):
        self.run, self.recipe, self.seed_number = run, recipe, seed_number
        self.feed = source.feed(run.seed, recipe.episodes)
        self.to_score = list(run.tasks.values())
        self.response = recipe.drift.response(run.seed) if recipe.drift is not None else None
        self.reaction = Reaction()
        self.held_out = {content_of(row) for row in held_out}
        self.episodes, self.evaluations = JsonLines(run.folder / EPISODES), JsonLines(run.folder / EVALUATIONS)
        n_expected = recipe.episodes if recipe.boundary == BY_TYPE else min(recipe.boundary, recipe.episodes)
        self.arriving = Arriving(self._next, self._learned, n_expected)
        self.pending: Row | None = None  # given by the feed, and not begun yet
        self.n_done = self.scored_at = 0
        self.n_acknowledged = 0  # checkpoints that the feed knows of

    def go(self, *, resumed: bool) -> None:
        """Learn all episodes, from the start or from the newest checkpoint."""
        training = self._restore() if resumed else None
        if not resumed:
            self._score()
            self._keep()
            self.run.checkpoint()
        self.run.when_paused = self.feed.stop
        while training is not None or self._peek() is not None:
            name = training["task"] if training else self._task_name(self.pending)
            if training is None:
                self.arriving.rows, self.reaction = [], replace(self.reaction, end_segment=False)
            self.run.tasks[name] = self._task(name)
            self.run.learn(self.run.tasks[name], training["learner"] if training else None)
            training = None
            self.run.position += 1
            self._keep()
        if self.scored_at < self.n_done:
            self._score()
        self.evaluations.append({"type": "end", "seed": self.run.seed, "episode": self.n_done})
        self._keep()
        self.run.checkpoint()

    def _peek(self) -> Row | None:
        """Return the problem that comes next, without beginning it."""
        if self.run.n_checkpoints > self.n_acknowledged:
            self.n_acknowledged = self.run.n_checkpoints
            self.feed.saved()
        if self.pending is None and self.n_done < self.recipe.episodes:
            self.pending = self.feed.next()
            if self.pending is not None:
                _check_row(self.pending, self.held_out)
            elif self.run.pause_requested:
                raise Paused(str(self.run.folder))
        return self.pending

    def _next(self) -> Row | None:
        """Return the next problem of the present task, or None where the task ends."""
        row, rows = self._peek(), self.arriving.rows
        if row is None or (rows and self._is_boundary(rows, row)):
            return None
        self.pending = None
        return row

    def _is_boundary(self, rows: list[Row], row: Row) -> bool:
        if self.reaction.end_segment:
            return True
        if self.recipe.boundary == BY_TYPE:
            return self._task_name(row) != self._task_name(rows[-1])
        return len(rows) >= self.recipe.boundary

    def _task_name(self, row: Row) -> str:
        name = row["type"] if self.recipe.boundary == BY_TYPE else STREAM
        return f"{name}, {self.reaction.task} drifts on" if self.reaction.task else name

    def _task(self, name: str) -> Task:
        """Return the task that begins: its rows are still to come."""
        known = next((task for task in self.to_score if task.name == name), self.to_score[0])
        return replace(known, name=name, train=self.arriving)

    def _learned(self, episode: Episode) -> None:
        self.n_done += 1
        self.feed.answered(episode.row, episode.right_before)
        if self.response is not None:
            watched = self.recipe.drift.error_of(episode.right_before, episode.loss)
            self.reaction = self.response.observe(watched)
            self.arriving.rate_factor = self.reaction.rate_factor
        self.episodes.append(self._line(episode), sync=False)
        self.run.listener.episode(self.n_done, self.recipe.episodes, episode)
        if self.n_done % self.recipe.evaluation.interval == 0:
            self._score()
        self._keep()

    def _line(self, episode: Episode) -> dict[str, Any]:
        row = episode.row
        return {
            "seed": self.run.seed,
            "episode": self.n_done,
            "type": row.get("type", ""),
            "difficulty": row.get("difficulty"),
            "question": row["prompt"],
            "answer": row["completion"].strip(),
            "before": episode.before.strip(),
            "after": None if episode.after is None else episode.after.strip(),
            "correct": episode.right_before,
            "correct_after": episode.right_after,
            "loss": episode.loss,
            "learning_rate": episode.learning_rate,
            "drift": self.reaction.drift,
            "seconds": round(episode.seconds, 4),
        }

    def _score(self) -> None:
        """Score the held-out problems and keep the adapter as it is."""
        started = time.perf_counter()
        outcomes = [right for task in self._as_learned() for right in self.run.score(task).outcomes]
        self.scored_at = self.n_done
        line = {
            "type": "evaluation",
            "seed": self.run.seed,
            "episode": self.n_done,
            "outcomes": [int(right) for right in outcomes],
            "strategy_bytes": {s.name: s.state_bytes() for s in self.run.strategies},
            "seconds": round(time.perf_counter() - started, 4),
        }
        self.evaluations.append(line)
        self.run.listener.evaluated(self.n_done, sum(outcomes) / len(outcomes))
        if self.n_done and not unknown_layers(self.run.model.network):
            self._save_adapter()

    def _as_learned(self) -> list[Task]:
        """Return the held-out tasks; in a stream of one, under the name of the task that is being learned."""
        if self.recipe.boundary == BY_TYPE or not self.run.learned:
            return self.to_score
        return [replace(self.to_score[0], name=self.run.current or self.run.learned[-1])]

    def _save_adapter(self) -> None:
        folder = self.run.folder
        if len(self.recipe.all_seeds()) > 1:
            folder = folder / f"seed-{self.run.seed}"
        save_trained(self.run.model, folder / f"checkpoint_ep{self.n_done}")
        kept = sorted(folder.glob("checkpoint_ep*"), key=lambda path: int(path.name.removeprefix("checkpoint_ep")))
        for old in kept[: -self.recipe.keep_checkpoints]:
            shutil.rmtree(old)

    def _keep(self) -> None:
        """Lay ready what a checkpoint holds besides model, strategies and learner."""
        self.run.context = {
            "seed_number": self.seed_number,
            "n_done": self.n_done,
            "scored_at": self.scored_at,
            "rows": self.arriving.rows,
            "pending": self.pending,
            "feed": self.feed.state(),
            "drift": None if self.response is None else [self.response.state(), asdict(self.reaction)],
            "moments": self.run.learner.moments_,
            "n_bytes": {name: lines.n_bytes() for name, lines in self._files().items()},
        }

    def _restore(self) -> dict[str, Any] | None:
        """Go on where the newest checkpoint stands; return its training, or None between tasks."""
        training = self.run.restore(self.run.folder)
        context = self.run.context
        self.n_done, self.scored_at, self.pending = context["n_done"], context["scored_at"], context["pending"]
        self.arriving.rows = context["rows"]
        self.feed.load_state(context["feed"])
        self.run.learner.moments_ = context["moments"]
        if self.response is not None:
            state, reaction = context["drift"]
            self.response.load_state(state)
            self.reaction = Reaction(**reaction)
            self.arriving.rate_factor = self.reaction.rate_factor
        for name, lines in self._files().items():
            lines.cut(context["n_bytes"][name])
        return training

    def _files(self) -> dict[str, JsonLines]:
        return {EPISODES: self.episodes, EVALUATIONS: self.evaluations}
