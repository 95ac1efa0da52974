"""What the training loop costs beside a bare PyTorch loop that does the same work on a twin of the model.

    python benchmarks/loop.py [--steps N] [--out FILE]

Each step of ours is followed at once by the bare loop's step on the same batch. Both end with the same weights, bit for
bit, or the comparison is void.
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
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from workload import (
    FIVE_MILLION,
    TINY,
    Batch,
    Workload,
    make_model,
    make_task,
    results_path,
    target_loss,
    use_one_thread,
)

from everlearn.learners.devices import start_accelerator
from everlearn.learners.loader import BatchPlan, EncodedMixture, plan_epoch
from everlearn.learners.sft import SupervisedLearner
from everlearn.listener import Listener
from everlearn.models.load import Model
from everlearn.types import Mixture, Task
from everlearn.way import Run

EPOCH_STEPS = 20  # short epochs, so that what an epoch's start costs is in the numbers
LEARNING_RATE = 1e-3
BARS = {"ratio": 1.05, "extra_ms": 0.5}


class BareLoop:
    """Forward, backward, clip, step: what anyone would write, with the batches of our loop."""

    def __init__(self, network: nn.Module, rows: list[dict[str, torch.Tensor]], epochs: list[list[list[int]]]):
        self.network = network.train()
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        self.batches = self._batches(rows, epochs)

    def step(self) -> None:
        """Take one optimizer step."""
        batch = next(self.batches)
        target_loss(self.network, batch).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _batches(self, rows: list[dict[str, torch.Tensor]], epochs: list[list[list[int]]]) -> Iterator[Batch]:
        for order in epochs:
            yield from DataLoader(rows, batch_sampler=order, collate_fn=_pad)


class PairedListener(Listener):
    """Lets the bare loop take its step after each of ours."""

    def __init__(self, bare: BareLoop):
        self.bare = bare
        self.pairs = Pairs()

    def training(self, task: Task, n_steps: int, done: int) -> None:
        self.pairs.start()

    def step(self, done: int, loss: float) -> None:
        self.pairs.close(self.bare.step)


def measure(workload: Workload, n_steps: int) -> tuple[dict[str, Any], dict[str, Any], float]:
    """Return the numbers of ours against bare, of bare against bare, and how far the weights of the twins end apart."""
    n_epochs = max(1, n_steps // EPOCH_STEPS)
    task = make_task(workload, EPOCH_STEPS * workload.batch_size)
    model = make_model(workload, task)
    rows, epochs = _bare_rows(model, task), _same_order(model, task, workload, n_epochs)
    bare, null_1, null_2 = (BareLoop(copy.deepcopy(model.network), rows, epochs) for _ in range(3))
    learner = SupervisedLearner(epochs=n_epochs, batch_size=workload.batch_size, learning_rate=LEARNING_RATE)
    listener = PairedListener(bare)
    Run(model, learner, [], start_accelerator(device="cpu"), tasks={task.name: task}, listener=listener).learn(task)
    null = Pairs()
    for _ in range(n_epochs * EPOCH_STEPS):
        null.start()
        null_1.step()
        null.close(null_2.step)
    ours = list(model.adapters.trainable().values())
    apart = max((p - q).abs().max().item() for p, q in zip(ours, bare.parameters, strict=True))
    return listener.pairs.numbers(), null.numbers(), apart


def main() -> None:
    """Measure both sizes, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--steps", type=int, default=60, help="pairs at 5 M parameters; 20 times as many on the tiny model"
    )
    parser.add_argument("--out", type=Path, default=results_path("loop"))
    arguments = parser.parse_args()
    use_one_thread()
    numbers: dict[str, Any] = {}
    for name, workload, times in (("five_million", FIVE_MILLION, 1), ("tiny", TINY, 20)):
        ours, null, apart = measure(workload, times * arguments.steps)
        longest = workload.longest + workload.completion
        report(f"{name}: batches of {workload.batch_size} rows of up to {longest} tokens", ours, null)
        print(f"  largest difference between the weights of the twins at the end: {apart:g}")
        if apart:
            raise SystemExit("the two loops did not do the same work: the comparison is void")
        numbers[name] = {"ours": ours, "null": null, "weights_apart": apart}
    numbers["bars"] = {
        "ratio": verdict("5 M: ratio", numbers["five_million"]["ours"], "ratio", BARS["ratio"]),
        "extra_ms": verdict("tiny: ms more a step", numbers["tiny"]["ours"], "extra_ms", BARS["extra_ms"]),
    }
    config = {"steps": arguments.steps, "five_million": asdict(FIVE_MILLION), "tiny": asdict(TINY)}
    write(arguments.out, config, numbers)


def _bare_rows(model: Model, task: Task) -> list[dict[str, torch.Tensor]]:
    """Return the encoded rows as tensors: the bare loop has them ready before its first step, like ours."""
    features = model.objective.encode(task.train, task)
    return [{name: torch.tensor(values) for name, values in feature.items()} for feature in features]


def _same_order(model: Model, task: Task, workload: Workload, n_epochs: int) -> list[list[list[int]]]:
    """Return the rows of each batch of each epoch, as our loop will meet them."""
    encoded = EncodedMixture(Mixture.of(task), model.objective)
    plan = BatchPlan(workload.batch_size, accumulation=1, group_by_length=False)
    planned = [plan_epoch(encoded, plan, (0, 0, task.name, epoch)) for epoch in range(n_epochs)]
    return [[[row for _, row in batch] for (batch,) in steps] for steps in planned]


def _pad(rows: list[dict[str, torch.Tensor]]) -> Batch:
    ids = [row["input_ids"] for row in rows]
    batch = {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=0),
        "labels": pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=-100),
    }
    lengths = torch.tensor([len(row) for row in ids])
    if lengths.min() < lengths.max():
        batch["attention_mask"] = (torch.arange(lengths.max())[None] < lengths[:, None]).long()
    return batch


if __name__ == "__main__":
    main()
