"""Runs that learn by reinforcement on tiny models, and a task that a random model solves a fifth of the time."""

from pathlib import Path
from typing import Any

from everlearn.learners.devices import start_accelerator
from everlearn.learners.ppo import PPO
from everlearn.listener import Listener
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.types import Row, Task
from everlearn.way import Run

ADAPTERS = {"lora": AdapterConfig("lora", rank=4), "full": AdapterConfig("full")}
SMALL = {
    "iterations": 2, "prompts": 4, "samples": 6, "max_new_tokens": 4, "learning_rate": 0.01,
    "sampling_dtype": "float32", "stop_success": None, "stop_signal": None,
}  # fmt: skip


def is_odd(answer: str, row: Row) -> bool:
    """A verifier: whether an answer has an odd number of letters, as a fifth of a random model's have."""
    return len(answer) % 2 == 1


def is_anything(answer: str, row: Row) -> bool:
    """A verifier that is content with any answer."""
    return True


def starts_low(answer: str, row: Row) -> bool:
    """A verifier: whether an answer begins with one of the first 80 characters, as a third of a random model's do."""
    return bool(answer) and ord(answer[0]) < 80


def letters_task(verifier: str = "is_odd", n_train: int = 8) -> Task:
    """Prompts of unequal lengths, with whatever verifier of this module."""
    rows = [{"prompt": f"{'t' * (1 + 3 * (n % 3))}{n}=", "completion": "ab"} for n in range(n_train + 2)]
    return Task("letters", "prompt", rows[:n_train], rows[n_train:], verifier=f"support.policy:{verifier}")


def policy_run(llama: Path, task: Task, adapter: str = "lora", strategies=(), **options: Any) -> Run:
    """Return a new run of PPO with SMALL options, or others, on a task."""
    return Run(
        model=load_model(ModelConfig(str(llama), ADAPTERS[adapter]), [task], 0),
        learner=PPO(**{**SMALL, **options}),
        strategies=list(strategies),
        accelerator=start_accelerator(device="cpu", precision=options.get("precision", "no")),
        tasks={task.name: task},
        listener=Listener(),
    )


def learned(run: Run) -> list[dict[str, Any]]:
    """Let a run learn its task, and return what is told of each iteration."""
    told: list[dict[str, Any]] = []
    run.learner.told = lambda run, task, numbers, last: told.append(numbers)
    run.learn(next(iter(run.tasks.values())))
    return told
