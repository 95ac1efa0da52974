"""What the per-example Fisher of LoRA weights costs beside a plain forward and backward pass over the same examples.

    python benchmarks/fisher.py [--batches N] [--out FILE]

Each batch of ours is followed at once by the plain pass over it on a twin. The result is compared with a loop that
takes one example at a time, and with the shortcut that squares the gradient of a batch's mean.
"""

import argparse
import copy
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from paired import Pairs, report, verdict, write
from torch import nn
from workload import FIVE_MILLION, Batch, make_model, make_task, results_path, target_loss, use_one_thread

from everlearn.functional.fisher import sum_of_squared_gradients
from everlearn.learners.loader import row_batches
from everlearn.models.load import Model

KINDS = ("sampled", "empirical")
SEED = 0
N_CHECKED = 2  # batches that the slow loop goes over
BAR = 1.2
TOLERANCE = 1e-5

Sums = dict[str, torch.Tensor]


class PlainPass:
    """The mean loss of a batch and its gradients, with the network in evaluation mode."""

    def __init__(self, network: nn.Module):
        self.network = network.eval()

    def over(self, batch: Batch) -> None:
        """One forward and one backward pass."""
        self.network.zero_grad(set_to_none=True)
        target_loss(self.network, batch).backward()


def our_sums(model: Model, batches: Iterator[Batch] | list[Batch], kind: str) -> Sums:
    """Return everlearn's sum of squared gradients."""
    generator = torch.Generator().manual_seed(SEED)
    with model.evaluating():
        sums, _ = sum_of_squared_gradients(
            model.network, model.adapters.trainable(), batches,
            lambda batch: model.objective.forward(model.network, batch), kind, generator,
        )  # fmt: skip
    return sums


def measure(model: Model, batches: list[Batch], kind: str) -> dict[str, Any]:
    """Return the numbers of ours against plain: the time between two batches asked for is what ours took for one."""
    plain, pairs = PlainPass(copy.deepcopy(model.network)), Pairs()

    def one_by_one() -> Iterator[Batch]:
        for batch in batches:
            yield batch
            pairs.close(lambda: plain.over(batch))  # noqa: B023  called at once

    pairs.start()
    our_sums(model, one_by_one(), kind)
    return pairs.numbers()


def measure_null(model: Model, batches: list[Batch]) -> dict[str, Any]:
    """Return the numbers of plain against plain."""
    first, second = (PlainPass(copy.deepcopy(model.network)) for _ in range(2))
    pairs = Pairs()
    for batch in batches:
        pairs.start()
        first.over(batch)
        pairs.close(lambda: second.over(batch))  # noqa: B023  called at once
    return pairs.numbers()


def check(model: Model, batches: list[Batch], kind: str) -> dict[str, float]:
    """Return how far ours, and the shortcut, are from taking one example at a time: {largest value, differences}."""
    ours = our_sums(model, batches, kind)
    # the labels that `sampled` draws are known to everlearn alone, so its own slow way is the reference there
    slow = _loop_of_one(model, batches) if kind == "empirical" else _rows_of_one(model, batches, kind)
    numbers = {
        "largest": max(s.max().item() for s in slow.values()),
        "largest_difference": max((ours[name] - s).abs().max().item() for name, s in slow.items()),
        "relative_difference": relative_difference(ours, slow),
    }
    if kind == "empirical":
        numbers["shortcut_relative_difference"] = relative_difference(_shortcut(model, batches), slow)
    if numbers["relative_difference"] > TOLERANCE:
        raise SystemExit(f"{kind}: the result is not that of single examples: {numbers}")
    return numbers


def relative_difference(sums: Sums, reference: Sums) -> float:
    """Return |sums - reference| / |reference| over all weights."""
    difference = torch.cat([(sums[name] - r).flatten() for name, r in reference.items()])
    return (difference.norm() / torch.cat([r.flatten() for r in reference.values()]).norm()).item()


def main() -> None:
    """Measure both kinds, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=30, help="pairs")
    parser.add_argument("--out", type=Path, default=results_path("fisher"))
    arguments = parser.parse_args()
    use_one_thread()
    task = make_task(FIVE_MILLION, arguments.batches * FIVE_MILLION.batch_size)
    model = make_model(FIVE_MILLION, task)
    batches = [batch for _, batch in row_batches(model.objective, task.train, task, FIVE_MILLION.batch_size)]
    null = measure_null(model, batches)
    numbers: dict[str, Any] = {"null": null}
    for kind in KINDS:
        ours, checked = measure(model, batches, kind), check(model, batches[:N_CHECKED], kind)
        report(f"{kind}: batches of {FIVE_MILLION.batch_size}", ours, null)
        bar = verdict("ratio", ours, "ratio", BAR)
        print("  beside a loop over single examples: " + ", ".join(f"{name} {n:.3g}" for name, n in checked.items()))
        numbers[kind] = {"ours": ours, "check": checked, "bar": bar}
    write(arguments.out, {"batches": arguments.batches, **asdict(FIVE_MILLION)}, numbers)


def _loop_of_one(model: Model, batches: list[Batch]) -> Sums:
    """Square the gradient of each example's log-likelihood, one example at a time, in plain PyTorch."""
    parameters = model.adapters.trainable()
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    with model.evaluating():
        for batch in batches:
            for row in range(len(batch["labels"])):
                single = {name: tensor[row : row + 1] for name, tensor in batch.items()}
                n_targets = int((single["labels"][:, 1:] != -100).sum())
                loss = target_loss(model.network, single) * n_targets
                for name, gradient in zip(
                    parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True
                ):
                    sums[name] += gradient.square()
    return sums


def _rows_of_one(model: Model, batches: list[Batch], kind: str) -> Sums:
    """Let everlearn square gradients example by example, by autograd: it must if a norm's weight is asked for too."""
    network = copy.deepcopy(model.network).eval()
    norm = next(p for name, p in network.named_parameters() if name.endswith("norm.weight"))
    norm.requires_grad_(True)
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    sums, _ = sum_of_squared_gradients(
        network, parameters, batches, lambda batch: model.objective.forward(network, batch), kind,
        torch.Generator().manual_seed(SEED),
    )  # fmt: skip
    return {name: sums[name] for name in model.adapters.trainable()}


def _shortcut(model: Model, batches: list[Batch]) -> Sums:
    """Square the gradient of a batch's summed loss over the root of its rows, as if its rows were alike: biased."""
    parameters = model.adapters.trainable()
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    with model.evaluating():
        for batch in batches:
            n_targets = int((batch["labels"][:, 1:] != -100).sum())
            loss = target_loss(model.network, batch) * n_targets
            for name, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
                sums[name] += gradient.square() / len(batch["labels"])
    return sums


if __name__ == "__main__":
    main()
