"""Sinusoids, the first experiment of the MAML paper: how far ten gradient steps go from a learned start.

    python benchmarks/sinusoid.py [--iterations N] [--seeds 0,1,2] [--out FILE] [--picture FILE]

y = A sin(x - p), A in [0.1, 5], p in [0, pi], x in [-5, 5]; a network of two ReLU layers of 40. One start a seed,
learned with K = 10 points and one inner step, is then adapted to 600 new sinusoids from K = 5 and from K = 10 points.
Source: Finn et al. 2017, arXiv 1703.03400, section 5.1.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from paired import write
from torch import Tensor
from torch.func import functional_call, vmap
from workload import results_path, use_one_thread

from everlearn.evaluation.stats import mean_interval
from everlearn.functional.meta import Weights, adapt
from everlearn.learners.meta import Episode, MetaLearner
from everlearn.models.plain import mlp
from everlearn.report.style import new_figure, run_style, save, tidy
from everlearn.seeds import generator_for, seed_for
from everlearn.types import Task, TensorRows

N_TASKS, N_STEPS, SHOTS, N_POINTS = 600, 10, (5, 10), 100
K, TASKS_PER_STEP, INNER_LR, OUTER_LR = 10, 25, 0.01, 0.001
STARTS = {"MAML": "maml", "all tasks jointly": "joint"}
RATES = {
    "MAML": (INNER_LR,),
    "all tasks jointly": (0.005, 0.01, 0.02),
}  # of a control's, the best after 10 steps counts


def draw(n_tasks: int, n_points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return x and y of some points of each of `n_tasks` sinusoids, both [n_tasks, n_points, 1]."""
    amplitude, phase = (torch.rand(2, n_tasks, 1, 1, generator=generator)).unbind()
    x = torch.rand(n_tasks, n_points, 1, generator=generator) * 10 - 5
    return x, (0.1 + 4.9 * amplitude) * torch.sin(x - torch.pi * phase)


class Sinusoids:
    """Endless episodes of 25 sinusoids each."""

    def __init__(self, seed: int):
        self.seed = seed
        x, y = draw(1, K, generator_for("an example"))
        self.tasks = [Task("sinusoid", "tensor", TensorRows(x[0], y[0]), TensorRows(x[0], y[0]))]

    def at(self, step: int) -> list[Episode]:
        """Return the sinusoids of a step: K points to learn from and K others."""
        x, y = draw(TASKS_PER_STEP, 2 * K, generator_for(self.seed, "sinusoids", step))
        points = [{"x": x[i], "y": y[i]} for i in range(TASKS_PER_STEP)]
        return [Episode((_part(p, slice(K)),), _part(p, slice(K, None))) for p in points]


def learn(start: str, seed: int, n_iterations: int) -> tuple[MetaLearner, float]:
    """Return the learner after so many outer steps, and how many seconds they took."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "network"))
        network = mlp(1, 1, hidden=(40, 40))
    # everlearn's loss is half the squared error: twice the rate takes the steps of the paper's loss
    learner = MetaLearner(network, 2 * INNER_LR, OUTER_LR, 1, algorithm=STARTS[start], seed=seed, device="cpu")
    began = time.perf_counter()
    learner.fit(Sinusoids(seed), n_iterations)
    return learner, time.perf_counter() - began


def errors(learner: MetaLearner, shots: int, rate: float) -> Tensor:
    """Return the mean squared error on each new sinusoid after 0 to 10 steps: [N_TASKS, N_STEPS + 1]."""
    network = learner.model.network
    weights: Weights = {name: p.detach() for name, p in network.named_parameters()}
    x, y = draw(N_TASKS, shots + N_POINTS, generator_for("new sinusoids", shots))

    def loss(weights: Weights, batch: dict[str, Tensor]) -> Tensor:
        return (functional_call(network, weights, (batch["x"],)) - batch["y"]).square().mean()

    def curve(x: Tensor, y: Tensor) -> Tensor:
        support, query = {"x": x[:shots], "y": y[:shots]}, {"x": x[shots:], "y": y[shots:]}
        steps, now = [loss(weights, query)], weights
        for _ in range(N_STEPS):
            now = adapt(loss, now, [support], rate)
            steps.append(loss(now, query))
        return torch.stack(steps)

    return vmap(curve)(x, y)


def summary(per_seed: list[Tensor]) -> dict[str, Any]:
    """Return the mean error after each step, with an interval over tasks, each its mean over seeds; and by seed."""
    mean_of_seeds = torch.stack(per_seed).mean(0).T.tolist()
    bounds = [mean_interval(step) for step in mean_of_seeds]
    return {
        "mse": [bound.value for bound in bounds],
        "low": [bound.low for bound in bounds],
        "high": [bound.high for bound in bounds],
        "mse_of_each_seed": [errors.mean(0).tolist() for errors in per_seed],
        "n_tasks": N_TASKS,
    }


def picture(numbers: dict[str, Any], path: Path) -> None:
    """Draw the error against the number of steps, a panel for each K."""
    figure = new_figure(8.5, 3.6)
    for axes, shots in zip(figure.subplots(1, len(SHOTS), sharey=True), SHOTS, strict=True):
        for position, start in enumerate(STARTS):
            found, steps = numbers[f"K={shots}"][start], range(N_STEPS + 1)
            style = run_style(position)
            axes.plot(steps, found["mse"], label=start, markersize=4, **style)
            axes.fill_between(steps, found["low"], found["high"], color=style["color"], alpha=0.2, linewidth=0)
        axes.set(title=f"{shots} points", xlabel="gradient steps", xticks=range(0, N_STEPS + 1, 2), ylim=(0, None))
        tidy(axes)
    figure.axes[0].set_ylabel("mean squared error")
    figure.axes[-1].legend(frameon=False)
    save(figure, path)


def _part(points: dict[str, Tensor], which: slice) -> dict[str, Tensor]:
    return {name: tensor[which] for name, tensor in points.items()}


def main() -> None:
    """Learn all starts, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--iterations", type=int, default=15_000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=results_path("sinusoid"))
    parser.add_argument("--picture", type=Path, default=results_path("sinusoid").with_suffix(".png"))
    arguments = parser.parse_args()
    use_one_thread()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    numbers: dict[str, Any] = {f"K={shots}": {} for shots in SHOTS}
    train_s = {}
    for start in STARTS:
        learned = [learn(start, seed, arguments.iterations) for seed in seeds]
        train_s[start] = [took_s for _, took_s in learned]
        print(f"{start}: {', '.join(f'{took_s:.0f}' for took_s in train_s[start])} s", flush=True)
        for shots in SHOTS:
            found = {rate: [errors(learner, shots, rate) for learner, _ in learned] for rate in RATES[start]}
            # steps at a rate may blow up on some of the sinusoids: it is left out
            whole = {rate: each for rate, each in found.items() if all(e.isfinite().all() for e in each)}
            curves = [{"rate": rate, **summary(each)} for rate, each in whole.items()]
            numbers[f"K={shots}"][start] = min(curves, key=lambda curve: curve["mse"][-1])
    for shots, starts in numbers.items():
        for start, curve in starts.items():
            told = [f"{curve['mse'][i]:.3f} [{curve['low'][i]:.3f}, {curve['high'][i]:.3f}]" for i in (0, 1, 5, 10)]
            print(f"{shots}, {start}: after 0, 1, 5, 10 steps {', '.join(told)}")
    picture(numbers, arguments.picture)
    config = {
        "iterations": arguments.iterations, "seeds": seeds, "meta_batch_size": TASKS_PER_STEP, "inner_lr": INNER_LR,
        "outer_lr": OUTER_LR, "trained_with_k": K, "inner_steps_in_training": 1,
    }  # fmt: skip
    write(arguments.out, config, {**numbers, "train_s": train_s})


if __name__ == "__main__":
    main()
