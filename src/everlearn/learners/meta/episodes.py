"""What meta-learning learns from: episodes, each a few steps of learning and the rows that judge them.

Which rows an episode holds depends on nothing but the seed and the number of the outer step: a resumed run draws the
same ones.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch

from everlearn.errors import StreamError, describe
from everlearn.functional.reservoir import reservoir_slots
from everlearn.learners.meta.config import MetaConfig
from everlearn.models.objectives import Batch, Features, Objective, to_device
from everlearn.seeds import generator_for
from everlearn.types import Task


@dataclass(frozen=True)
class Episode:
    """`support`: the batch of each inner step, in order. `query`: what the adapted weights are judged by."""

    support: tuple[Batch, ...]
    query: Batch

    @property
    def batches(self) -> tuple[Batch, ...]:
        """All batches: those of the inner steps, then the query."""
        return (*self.support, self.query)

    def to(self, device: torch.device) -> "Episode":
        """Return the episode on a device."""
        *support, query = [to_device(batch, device) for batch in self.batches]
        return Episode(tuple(support), query)


class Episodes(Protocol):
    """A source of episodes: everlearn's own are made of tasks; any object with these two will do."""

    tasks: Sequence[Task]  # what it draws from, or an example of it: they tell which kind of model it is for

    def at(self, step: int) -> list[Episode]:
        """Return the episodes of an outer step, from 0 on; the same at each call."""
        ...


@dataclass(frozen=True)
class EncodedTask:
    """The features of a task's training rows."""

    objective: Objective
    features: Features

    @classmethod
    def of(cls, task: Task, objective: Objective) -> "EncodedTask":
        """Encode a task's training rows."""
        return cls(objective, objective.encode(task.train, task))

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return some rows as a batch."""
        return self.objective.collate(self.objective.take(self.features, list(rows)))

    def draw(self, n: int, name: str, generator: torch.Generator) -> list[int]:
        """Return the numbers of `n` different rows."""
        if n > len(self):
            way_out = "Lower learner.n_support or learner.n_query, or give the task more rows"
            raise StreamError(
                describe(f"task {name!r}", f"has too few training rows for {n} at once", len(self), way_out)
            )
        return torch.randperm(len(self), generator=generator)[:n].tolist()


class TaskEpisodes:
    """Each episode is of one task: MAML, Reptile; and plain training, which has nothing to adapt to."""

    def __init__(self, tasks: Sequence[Task], objective: Objective, config: MetaConfig, seed: int):
        self.tasks, self.config, self.seed = tuple(tasks), config, seed
        self._encoded = [EncodedTask.of(task, objective) for task in tasks]

    def at(self, step: int) -> list[Episode]:
        """Return an episode of each of `meta_batch_size` tasks: different ones, as far as there are so many."""
        generator = generator_for(self.seed, "episodes", step)
        return [self._episode(task, generator) for task in draw_tasks(len(self.tasks), self.config, generator)]

    def _episode(self, task: int, generator: torch.Generator) -> Episode:
        encoded, n_learned = self._encoded[task], self.config.n_learned
        rows = encoded.draw(n_learned + self.config.n_query, self.tasks[task].name, generator)
        if self.config.algorithm == "joint":
            return Episode((), encoded.batch(rows))
        support = inner_batches(encoded, rows[:n_learned], self.config.adaptation_steps, self.config.inner_rows)
        return Episode(support, encoded.batch(rows[n_learned:]))


class Trajectories:
    """Each outer step has one episode: several tasks, one after another, then rows that judge what is left.

    For OML rows of these tasks that weren't learned. For ANML those that were, and rows of tasks drawn from all.
    """

    def __init__(self, tasks: Sequence[Task], objective: Objective, config: MetaConfig, seed: int):
        self.tasks, self.config, self.seed = tuple(tasks), config, seed
        self._objective = objective
        self._encoded = [EncodedTask.of(task, objective) for task in tasks]

    def at(self, step: int) -> list[Episode]:
        """Return the step's trajectory."""
        config, generator = self.config, generator_for(self.seed, "episodes", step)
        support: list[Batch] = []
        judging = []
        for task in draw_tasks(len(self.tasks), config, generator):
            encoded = self._encoded[task]
            rows = encoded.draw(config.n_learned + config.n_query, self.tasks[task].name, generator)
            learned, others = rows[: config.n_learned], rows[config.n_learned :]
            support += inner_batches(encoded, learned, config.adaptation_steps, config.inner_rows)
            judging += self._objective.take(encoded.features, learned if config.algorithm == "anml" else others)
        if config.algorithm == "anml":
            for task in draw_tasks(len(self.tasks), config, generator):
                encoded = self._encoded[task]
                rows = encoded.draw(config.n_query, self.tasks[task].name, generator)
                judging += self._objective.take(encoded.features, rows)
        return [Episode(tuple(support), self._objective.collate(judging))]


class ReplayedStream:
    """The rows of tasks, task after task and each once, for MER: the present row among rows drawn from a memory.

    The step's episodes are MER's s batches: their supports are single rows, the queries the present row. The memory
    is a reservoir over the rows before.
    """

    def __init__(self, tasks: Sequence[Task], objective: Objective, config: MetaConfig, seed: int):
        self.tasks, self.config, self.seed = tuple(tasks), config, seed
        self._encoded = [EncodedTask.of(task, objective) for task in tasks]
        self._ends = list(accumulate(len(encoded) for encoded in self._encoded))
        self._orders: dict[int, list[int]] = {}
        self._memory: dict[int, int] = {}  # slot -> place in the stream
        self._n_seen = 0

    def __len__(self) -> int:
        return self._ends[-1]

    def at(self, step: int) -> list[Episode]:
        """Return the batches of the stream's row number `step`."""
        if step >= len(self):
            raise StreamError(
                describe("mer", "the stream has ended", step, "Give more tasks; each row is learned once")
            )
        memory, generator = self._memory_before(step), generator_for(self.seed, "replayed", step)
        present, episodes = self._row(step), []
        for _ in range(self.config.meta_batch_size):
            drawn = torch.randperm(len(memory), generator=generator)[: self.config.adaptation_steps - 1].tolist()
            places = [step, *(memory[i] for i in drawn)]
            order = torch.randperm(len(places), generator=generator).tolist()
            episodes.append(Episode(tuple(self._row(places[i]) for i in order), present))
        return episodes

    def _memory_before(self, step: int) -> list[int]:
        """Return the places of the rows in the reservoir when row `step` comes."""
        if step < self._n_seen:
            self._memory, self._n_seen = {}, 0
        for place in range(self._n_seen, step):
            generator = generator_for(self.seed, "reservoir", place)
            for slot in reservoir_slots(place, 1, self.config.memory_size, generator):
                self._memory[slot] = place
        self._n_seen = step
        return list(self._memory.values())

    def _row(self, place: int) -> Batch:
        task = bisect_right(self._ends, place)
        if task not in self._orders:
            generator = generator_for(self.seed, "stream", self.tasks[task].name)
            self._orders[task] = torch.randperm(len(self._encoded[task]), generator=generator).tolist()
        return self._encoded[task].batch([self._orders[task][place - self._ends[task]]])  # counted from the task's end


def episodes_of(tasks: Sequence[Task], objective: Objective, config: MetaConfig, seed: int) -> Episodes:
    """Return the source of episodes that an algorithm draws from tasks."""
    if config.algorithm == "mer":
        return ReplayedStream(tasks, objective, config, seed)
    return (Trajectories if config.is_online else TaskEpisodes)(tasks, objective, config, seed)


def draw_tasks(n_tasks: int, config: MetaConfig, generator: torch.Generator) -> list[int]:
    """Return the numbers of an outer step's tasks; none comes twice before all have come once."""
    drawn: list[int] = []
    while len(drawn) < config.meta_batch_size:
        drawn += torch.randperm(n_tasks, generator=generator).tolist()
    return drawn[: config.meta_batch_size]


def inner_batches(encoded: EncodedTask, rows: Sequence[int], n_steps: int, n_rows: int) -> tuple[Batch, ...]:
    """Return a batch of `n_rows` for each of `n_steps`: the rows dealt in turn, from the first again at the end."""
    deals = [[rows[(step * n_rows + i) % len(rows)] for i in range(n_rows)] for step in range(n_steps)]
    made = {tuple(deal): encoded.batch(deal) for deal in deals}
    return tuple(made[tuple(deal)] for deal in deals)


def are_alike(episodes: Sequence[Episode]) -> bool:
    """Tell whether the batches of all episodes have the same shapes."""
    shapes = [[{name: t.shape for name, t in batch.items()} for batch in episode.batches] for episode in episodes]
    return all(shape == shapes[0] for shape in shapes)


def stacked(episodes: Sequence[Episode]) -> Episode:
    """Return episodes that are alike as one, with a first dimension for the episode, for `torch.vmap`."""
    together = zip(*(episode.batches for episode in episodes), strict=True)
    *support, query = [{name: torch.stack([b[name] for b in batches]) for name in batches[0]} for batches in together]
    return Episode(tuple(support), query)
