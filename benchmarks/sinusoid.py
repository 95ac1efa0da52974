"""Sinusoids, the first experiment of the MAML paper: how far ten gradient steps go from a learned start.

    python benchmarks/sinusoid.py [--iterations N] [--seeds 0,1,2] [--out FILE] [--picture FILE]

y = A sin(x - p), A in [0.1, 5], p in [0, pi], x in [-5, 5]; a network of two ReLU layers of 40. One start a seed,
learned with K = 10 points and one inner step, is then adapted to 600 new sinusoids from K = 5 and from K = 10 points.
Source: Finn et al. 2017, arXiv 1703.03400, section 5.1.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from paired import write
from torch import Tensor, nn
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
PLAIN_LR = 0.02  # of the steps from the joint start, as in the paper's figure for K = 10


class Networks(nn.Module):
    """A network for each seed, side by side: column s of the input goes through network s to column s of the output.

    Their losses add up and share no weight, so that each has the gradient, and Adam's steps, that it has alone.
    """

    def __init__(self, seeds: Sequence[int]):
        super().__init__()
        layers = [_linear_layers(seed) for seed in seeds]
        self.weights = nn.ParameterList(torch.stack([net[i].weight.detach() for net in layers]) for i in range(3))
        self.biases = nn.ParameterList(torch.stack([net[i].bias.detach() for net in layers]) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Return y [n_points, n_seeds] of x [n_points, n_seeds]."""
        hidden = x.T.unsqueeze(-1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias.unsqueeze(1), hidden, weight.mT)
            hidden = hidden.relu() if i < 2 else hidden
        return hidden.squeeze(-1).T


def draw(n_tasks: int, n_points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return x and y of some points of each of `n_tasks` sinusoids, both [n_tasks, n_points]."""
    amplitude, phase = torch.rand(2, n_tasks, 1, generator=generator).unbind()
    x = torch.rand(n_tasks, n_points, generator=generator) * 10 - 5
    return x, (0.1 + 4.9 * amplitude) * torch.sin(x - torch.pi * phase)


class Sinusoids:
    """Endless episodes of 25 sinusoids, other ones for each seed: x and y [n_points, n_seeds]."""

    def __init__(self, seeds: Sequence[int]):
        self.seeds = seeds
        example = TensorRows(torch.zeros(1, len(seeds)), torch.zeros(1, len(seeds)))
        self.tasks = [Task("sinusoids", "tensor", example, example)]

    def at(self, step: int) -> list[Episode]:
        """Return the sinusoids of a step: K points to learn from and K others."""
        drawn = [draw(TASKS_PER_STEP, 2 * K, generator_for(seed, "sinusoids", step)) for seed in self.seeds]
        x, y = (torch.stack(parts, dim=-1) for parts in zip(*drawn, strict=True))
        points = [{"x": x[i], "y": y[i]} for i in range(TASKS_PER_STEP)]
        return [Episode((_part(p, slice(K)),), _part(p, slice(K, None))) for p in points]


def learn(start: str, seeds: Sequence[int], n_iterations: int) -> tuple[MetaLearner, float]:
    """Return the learner after so many outer steps, and how many seconds they took."""
    # everlearn's loss is half the squared error: twice the rate takes the steps of the paper's loss
    learner = MetaLearner(Networks(seeds), 2 * INNER_LR, OUTER_LR, 1, algorithm=STARTS[start], device="cpu")
    began = time.perf_counter()
    learner.fit(Sinusoids(seeds), n_iterations)
    return learner, time.perf_counter() - began


def errors(learner: MetaLearner, n_seeds: int, shots: int, rate: float) -> Tensor:
    """Return the mean squared error on each new sinusoid after 0 to 10 steps: [N_TASKS, N_STEPS + 1, n_seeds]."""
    network = learner.model.network
    weights: Weights = {name: p.detach() for name, p in network.named_parameters()}
    x, y = (
        t.unsqueeze(-1).expand(-1, -1, n_seeds) for t in draw(N_TASKS, shots + N_POINTS, generator_for("new", shots))
    )

    def error(weights: Weights, batch: dict[str, Tensor]) -> Tensor:
        return (functional_call(network, weights, (batch["x"],)) - batch["y"]).square().mean(0)

    def curve(x: Tensor, y: Tensor) -> Tensor:
        support, query = {"x": x[:shots], "y": y[:shots]}, {"x": x[shots:], "y": y[shots:]}
        found, now = [error(weights, query)], weights
        for _ in range(N_STEPS):
            now = adapt(lambda w, batch: error(w, batch).sum(), now, [support], rate)
            found.append(error(now, query))
        return torch.stack(found)

    return vmap(curve)(x, y)


def summary(found: Tensor) -> dict[str, Any]:
    """Return the mean error after each step, with an interval over tasks, each its mean over seeds; and by seed."""
    bounds = [mean_interval(step) for step in found.mean(-1).T.tolist()]
    return {
        "mse": [bound.value for bound in bounds],
        "low": [bound.low for bound in bounds],
        "high": [bound.high for bound in bounds],
        "mse_of_each_seed": found.mean(0).T.tolist(),
        "n_tasks": len(found),
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


def main() -> None:
    """Learn all starts, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--iterations", type=int, default=12_000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=results_path("sinusoid"))
    parser.add_argument("--picture", type=Path, default=results_path("sinusoid").with_suffix(".png"))
    arguments = parser.parse_args()
    use_one_thread()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    numbers: dict[str, Any] = {f"K={shots}": {} for shots in SHOTS}
    train_s = {}
    for start in STARTS:
        learner, train_s[start] = learn(start, seeds, arguments.iterations)
        print(f"{start}: {train_s[start]:.0f} s", flush=True)
        rate = INNER_LR if start == "MAML" else PLAIN_LR
        for shots in SHOTS:
            numbers[f"K={shots}"][start] = summary(errors(learner, len(seeds), shots, rate))
    for shots, starts in numbers.items():
        for start, curve in starts.items():
            told = [f"{curve['mse'][i]:.3f} [{curve['low'][i]:.3f}, {curve['high'][i]:.3f}]" for i in (0, 1, 5, 10)]
            print(f"{shots}, {start}: after 0, 1, 5, 10 steps {', '.join(told)}")
    picture(numbers, arguments.picture)
    config = {
        "iterations": arguments.iterations, "seeds": seeds, "meta_batch_size": TASKS_PER_STEP, "inner_lr": INNER_LR,
        "outer_lr": OUTER_LR, "trained_with_k": K, "inner_steps_in_training": 1, "joint_lr": PLAIN_LR,
    }  # fmt: skip
    write(arguments.out, config, {**numbers, "train_s": train_s})


def _part(points: dict[str, Tensor], which: slice) -> dict[str, Tensor]:
    return {name: tensor[which] for name, tensor in points.items()}


def _linear_layers(seed: int) -> list[nn.Linear]:
    """Return the layers of a network of two hidden layers of 40, with PyTorch's own initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "network"))
        return [layer for layer in mlp(1, 1, hidden=(40, 40)) if isinstance(layer, nn.Linear)]


if __name__ == "__main__":
    main()
