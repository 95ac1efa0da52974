"""Record what a small recipe does step by step, so that a change of the numbers is noticed: make golden.

Run it with the name of a recipe in this folder, or without one for all. The commit that changes a record says why.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from everlearn.config import load_recipe
from everlearn.learners.devices import start_accelerator
from everlearn.listener import Listener
from everlearn.models.load import load_model
from everlearn.record import environment
from everlearn.strategy import Strategy
from everlearn.streams.schedule import apply_schedule
from everlearn.types import Step
from everlearn.way import Run

FOLDER = Path(__file__).parent


@dataclass
class Steps(Listener, Strategy):
    """Writes down each step's loss, and its gradient norm before clipping."""

    steps: list[dict[str, float]] = field(default_factory=list)
    norm: float = 0.0

    def edit_grads(self, step: Step) -> None:
        """Take the norm; listed last, it sees the gradient that the other strategies left."""
        gradients = [p.grad.flatten() for p in step.params.values() if p.grad is not None]
        self.norm = torch.cat(gradients).double().norm().item()

    def step(self, done: int, loss: float) -> None:
        """Write the step down."""
        self.steps.append({"loss": loss, "grad_norm": self.norm})


def measure(path: Path) -> dict[str, Any]:
    """Run a recipe on the CPU; return {config, env, steps, matrix}, the matrix with None for tasks not yet learned."""
    recipe = load_recipe(path)
    seen = Steps()
    schedule = apply_schedule(recipe.build_stream().build(), **recipe.schedule_options())
    (seed,) = recipe.all_seeds()
    tasks = list(schedule.stream)
    run = Run(
        model=load_model(recipe.model, tasks, seed),
        learner=recipe.build_learner(),
        strategies=[*recipe.build_strategies(), seen],
        accelerator=start_accelerator(device="cpu"),
        seed=seed,
        tasks={task.name: task for task in tasks},
        listener=seen,
    )
    matrix = []
    for position, task in enumerate(schedule.steps):
        run.position = position
        run.learn(task)
        matrix.append([run.score(t).value if t.name in run.learned else None for t in tasks])
    return {"config": asdict(recipe), "env": environment(torch.device("cpu")), "steps": seen.steps, "matrix": matrix}


def main() -> None:
    """Record the recipes named on the command line, or all."""
    torch.set_num_threads(1)
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.yaml")):
        content = json.dumps(measure(FOLDER / f"{name}.yaml"), indent=1)
        (FOLDER / f"{name}.json").write_text(content + "\n", encoding="utf-8")
        print(f"recorded {name}")


if __name__ == "__main__":
    main()
