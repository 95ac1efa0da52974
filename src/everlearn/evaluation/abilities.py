"""What a language model could do before it learned, and how much is left: probes that need no data of the user's.

`self`: texts that the base model wrote by itself; -KL(base || model) per token on them. `arena`: small problems of the
types that the base solves; the share that is right. A file: the share of its prompts that is right, or the mean
log-likelihood of its texts (and their perplexity). docs/abilities.md says how to read them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everlearn.errors import ConfigError, StateError, StreamError, describe
from everlearn.evaluation.probes import ARENA, SELF, TEXT_FILES, check_abilities
from everlearn.evaluation.score import score_per_token, score_task
from everlearn.learners.teacher import as_base
from everlearn.memory.answers import Answers
from everlearn.memory.own_texts import TASK, OwnTexts, divergences_on, write_own_texts
from everlearn.models.load import network_kind
from everlearn.provenance import rows_sha256
from everlearn.seeds import seed_for, seeded
from everlearn.state import load_value, save_value
from everlearn.streams.arena import ADVANCED_TYPES, TYPES, distinct_problems
from everlearn.streams.arena.stream import MAX_NEW_TOKENS
from everlearn.streams.files import load_task
from everlearn.types import Score, Task

if TYPE_CHECKING:
    from everlearn.way import Run

DIVERGENCE = "negative_kl"  # the metric of `self`
N_TEXTS, MAX_TOKENS, TOP_K = 32, 48, 64  # of `self`
BATCH_SIZE = 8  # texts at once: the same whenever they are measured, for sums depend on it in their last digits
N_TRIED = 8  # arena problems that choose a type
N_PROBLEMS, LEAST_PROBLEMS = 64, 8  # that measure: over all types that were chosen, and of each at least
LEAST_RIGHT = 0.5  # of those tried, for a type that the base can do


@dataclass
class Abilities:
    """Probes of one base model: made once, before it learns, and measured at any time after.

    Attributes:
        names: self, arena, or paths of files.
        tasks: the task of each file, and that of the arena once its types are chosen; only evaluation rows.
        texts, answers: what the base wrote by itself, and what it thought of it, once it did.
        types: the arena's types that the base can do, once they are chosen.
    """

    names: tuple[str, ...]
    tasks: dict[str, Task] = field(default_factory=dict)
    texts: OwnTexts | None = None
    answers: Answers | None = None
    types: tuple[str, ...] = ()

    @classmethod
    def read(cls, names: Sequence[str], tasks: Sequence[Task] = (), head: str = "task") -> "Abilities":
        """Return the probes of these names, their files read; no model is needed yet.

        Args:
            tasks: what the model will learn. head: of its `ModelConfig`.

        Raises:
            ConfigError: if a name is unknown, or the tasks aren't those of a language model that writes.
            StreamError: if a file can't be read.
        """
        check_abilities("evaluation.abilities", names)
        if names and tasks and network_kind(tasks, head) != "causal":
            way_out = "Leave evaluation.abilities out"
            what = "are measured on language models that write"
            raise ConfigError(describe("evaluation.abilities", what, tasks[0].kind, way_out))
        files = [name for name in names if name not in (SELF, ARENA)]
        return cls(tuple(names), {name: _task_of_file(name) for name in files})

    def make(self, run: "Run") -> None:
        """Let the base model write its texts, and choose the arena's types by what it solves.

        The base is the model without what learning added to it; where the weights themselves are trained (adapter
        full), it is the model as it is now. What of the files doesn't fit the model is told.

        Cost: see `write_own_texts`; for the arena, answers to N_TRIED problems of each of its types.
        """
        for task in self.tasks.values():
            run.inspect(task)
        if SELF in self.names:
            self.texts, self.answers = write_own_texts(
                run, n_texts=N_TEXTS, max_tokens=MAX_TOKENS, top_k=TOP_K, batch_size=BATCH_SIZE, purpose=("abilities",)
            )
        if ARENA in self.names:
            tried = {name: _arena_task(name, (name,), N_TRIED, "validation") for name in (*TYPES, *ADVANCED_TYPES)}
            with as_base(run):
                shares = {
                    name: score_task(run.model, task, "evaluation", run.accelerator, BATCH_SIZE).value
                    for name, task in tried.items()
                }
            self._choose(tuple(name for name, share in shares.items() if share >= LEAST_RIGHT))
            if not self.types:
                run.note(
                    f"The base model solves no type of the arena's problems (at least {LEAST_RIGHT:.0%} of {N_TRIED}), "
                    "so evaluation.abilities: arena measures nothing."
                )

    def make_in(self, run: "Run", folder: Path) -> None:
        """Take over what was made into a folder; where there is none, `make` it from a model that hasn't learned."""
        if not self.names:
            return
        if not folder.exists():
            self.make(run)
            if run.processes.rank == 0:
                save_value(folder, self.state(), "abilities")
            return
        self.load_state(load_value(folder))

    def measure(self, run: "Run") -> Iterator[Score]:
        """Yield the score of each probe as the model is now; higher is better in all. Nothing of the model changes.

        Raises:
            StateError: if the probes haven't been made.
        """
        for name in self.names:
            if name == SELF:
                yield self._measure_divergence(run)
            elif name in self.tasks:
                yield replace(run.score(self.tasks[name]), task=name)

    def state(self) -> dict[str, Any]:
        """Return what was made, and what the files held: tensors and JSON."""
        hashes = {name: rows_sha256(task.evaluation) for name, task in self.tasks.items() if name != ARENA}
        return {"texts": self.texts, "answers": self.answers, "types": list(self.types), "files": hashes}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned.

        Raises:
            StateError: if a file's rows are others now.
        """
        self.texts, self.answers = state["texts"], state["answers"]
        self._choose(tuple(state["types"]))
        for name, task in self.tasks.items():
            if name != ARENA and rows_sha256(task.evaluation) != state["files"].get(name):
                way_out = "Put back the file that the abilities were first measured on, or begin anew"
                raise StateError(describe("evaluation.abilities", "the file's rows are others now", name, way_out))

    def _choose(self, types: tuple[str, ...]) -> None:
        self.types = types
        if types:
            n = max(LEAST_PROBLEMS, N_PROBLEMS // len(types))
            self.tasks[ARENA] = _arena_task(ARENA, types, n, "evaluation")

    def _measure_divergence(self, run: "Run") -> Score:
        if self.texts is None or self.answers is None:
            way_out = "Call make() before the model learns"
            raise StateError(describe("abilities", "the base model hasn't written its texts", None, way_out))
        with seeded(seed_for(run.seed, "score", SELF)), run.ready_for(TASK):
            run.listener.scoring(TASK)
            found = divergences_on(run, self.texts, self.answers, BATCH_SIZE)
        score = score_per_token(SELF, DIVERGENCE, [-value for value, _ in found], [n for _, n in found])
        run.listener.scored(score)
        return score


def _arena_task(name: str, types: Sequence[str], n: int, split: str) -> Task:
    """Return n problems of each type at difficulty 1, as a task that is only measured."""
    rows = [problem.row() for one in types for problem in distinct_problems(one, n, levels=(1,), split=split)]
    return Task(f"abilities/{name}", "prompt", (), rows, verifier="arena", max_new_tokens=MAX_NEW_TOKENS)


def _task_of_file(name: str) -> Task:
    """Return the rows of a file as a task that is only measured.

    A text file's paragraphs, parted by blank lines, are its texts.
    """
    path, where = Path(name).expanduser(), f"abilities/{name}"
    if path.suffix.lower() in TEXT_FILES:
        return Task(where, "text", (), _paragraphs(path))
    task = load_task(where, path, path, allow_overlap=True)
    if task.kind == "prompt" and all(row.get("choices") for row in task.evaluation):
        task = replace(task, metrics=("choice",))
    if task.kind not in ("prompt", "text"):
        way_out = "Give it prompts and completions, messages, or texts"
        raise ConfigError(describe("evaluation.abilities", f"{name} has rows of another kind", task.kind, way_out))
    return replace(task, train=(), notes=())


def _paragraphs(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        way_out = "Name a file of text in UTF-8"
        raise StreamError(describe("evaluation.abilities", f"can't be read ({error})", str(path), way_out)) from error
    paragraphs = [part.strip() for part in text.replace("\r\n", "\n").split("\n\n")]
    rows = [{"text": part} for part in paragraphs if part]
    if not rows:
        raise StreamError(describe("evaluation.abilities", "has no text", str(path), "Name a file with some"))
    return rows
