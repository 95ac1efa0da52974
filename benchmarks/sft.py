"""LoRA training beside TRL's `SFTTrainer` and a loop by hand: the same rows in the same batches, from the same adapter.

    python benchmarks/sft.py [--peer PYTHON] [--models smollm2,pocket] [--data news,dialogues] [--threads 1,2] [--out FILE]

PYTHON is the interpreter of another environment that holds TRL (benchmarks/sft_worker.py says how it is made). The rows:
news of AG News (--shared, the folder shared/data) with one word as answer, and dialogues of about 200 tokens made of
them. Each side is a process of its own; they take blocks of steps in turns, so that noise meets all of them. Rows a
second are told as ratios over the blocks, memory as the largest resident size of each process.

The batches are those that everlearn makes (rows of like length together), handed to the others as token ids in their
order. All must begin and end at the same loss, or the comparison is void.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import torch
from paired import median_with_interval, write
from peft import AutoPeftModelForCausalLM
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers.utils.logging import disable_progress_bar
from turns import Turns, Worker
from workload import results_path

from everlearn.learners.devices import start_accelerator
from everlearn.learners.loader import BatchPlan, EncodedMixture, plan_epoch
from everlearn.learners.sft import SupervisedLearner
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from everlearn.runs import Listener, Run
from everlearn.types import Mixture, Task

WORDS = {"World": "World", "Sports": "Sports", "Business": "Business", "Science or Technology": "Science"}
BATCH_SIZES = {"news": 8, "dialogues": 4}
LEARNING_RATE = 5e-4
BARS = {"trl": {"news": 1.6, "dialogues": 1.1}, "by_hand": {"news": 0.97, "dialogues": 0.97}}
MEMORY_BAR = 0.8  # of TRL's
SAME_LOSS = 0.05  # relative: sums in another order drift apart over the steps


def news(articles: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield articles with their topic, one word, as answer."""
    for article in articles:
        yield {"prompt": f"{article['text'].strip()}\nTopic:", "completion": f" {WORDS[article['label_name']]}"}


def dialogues(articles: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield dialogues of two questions, about 200 tokens, of which the last answer is learned."""
    texts = [" ".join(article["text"].partition("Text:")[2].split()) for article in articles]
    for number in range(0, len(texts) - 2, 3):
        first, *second = texts[number : number + 3]
        prompt = f"User: What is new today?\nAssistant: {first}\nUser: Is there anything else?\nAssistant:"
        yield {"prompt": prompt, "completion": f" {' '.join(second)}"}


ROWS: dict[str, Callable[[list[dict[str, Any]]], Iterator[dict[str, str]]]] = {"news": news, "dialogues": dialogues}


class InTurns(Listener):
    """Lets training take a step only when it is told to."""

    def __init__(self, turns: Turns):
        self.turns, self.losses = turns, []

    def training(self, task: Task, n_steps: int, done: int) -> None:
        self.turns.begin()

    def step(self, done: int, loss: float) -> None:
        self.losses.append(loss)
        self.turns.step()

    def note(self, text: str) -> None:
        """Say nothing: what is printed is part of the turns."""


def load(folder: Path) -> tuple[Task, Model, SupervisedLearner, dict[str, Any]]:
    """Return what a comparison's folder says is trained, and how."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    torch.set_num_threads(plan["n_threads"])
    rows = [json.loads(line) for line in (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    task = Task(plan["data"], "prompt", rows, rows[:1])
    model = load_model(ModelConfig(name=plan["model"], chat="never", adapter=AdapterConfig(rank=16)), [task])
    learner = SupervisedLearner(
        epochs=1, batch_size=plan["batch_size"], learning_rate=LEARNING_RATE, precision=plan["precision"],
        group_by_length=True,
    )  # fmt: skip
    return task, model, learner, plan


def prepare(folder: Path, shared: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Write a comparison's plan, rows (as texts, and as ids in the order of the batches) and adapter; return its size."""
    articles = parquet.read_table(shared / "cl15" / "agnews" / "train.parquet").to_pylist()
    n_rows = plan["n_steps"] * plan["batch_size"]
    made = list(ROWS[plan["data"]](articles))
    rows = [made[number % len(made)] for number in range(n_rows)]
    (folder / "plan.json").write_text(json.dumps({**plan, "learning_rate": LEARNING_RATE}), encoding="utf-8")
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task, model, _, _ = load(folder)
    model.network.save_pretrained(folder / "adapter")
    encoded = EncodedMixture(Mixture.of(task), model.objective)
    n_tokens = n_targets = n_padded = 0
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        for (addresses,) in plan_epoch(encoded, BatchPlan(plan["batch_size"], 1, True), (0, 0, task.name)):
            batch = encoded.__getitems__(addresses)
            read = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
            n_padded += read.numel()
            for ids, labels, kept in zip(batch["input_ids"], batch["labels"], read, strict=True):
                wanted = (labels[kept] != -100).int().tolist()
                print(json.dumps({"input_ids": ids[kept].tolist(), "completion_mask": wanted}), file=file)
                n_tokens, n_targets = n_tokens + len(wanted), n_targets + sum(wanted)
    sizes = {"tokens_a_row": n_tokens, "targets_a_row": n_targets, "padded_tokens_a_row": n_padded}
    return {name: number / n_rows for name, number in sizes.items()}


def ours(folder: Path) -> None:
    """Train the way users do, in turns."""
    task, model, learner, plan = load(folder)
    listener = InTurns(Turns(plan["block"]))
    accelerator = start_accelerator(precision=learner.precision, device="cpu")
    Run(model, learner, [], accelerator, tasks={task.name: task}, listener=listener).learn(task)
    listener.turns.end(losses=listener.losses)


def by_hand(folder: Path) -> None:
    """Train with a plain loop that computes logits where a target is, in turns."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    torch.set_num_threads(plan["n_threads"])
    network = AutoPeftModelForCausalLM.from_pretrained(
        folder / "adapter", is_trainable=True, dtype=torch.float32
    ).train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    losses, turns = [], Turns(plan["block"])
    turns.begin()
    for start in range(0, len(rows), plan["batch_size"]):
        ids, wanted, mask = padded(rows[start : start + plan["batch_size"]])
        with torch.autocast("cpu", torch.bfloat16, enabled=plan["precision"] == "bf16"):
            loss = loss_at_targets(network, ids, wanted, mask)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        turns.step()
    turns.end(losses=losses)


def padded(rows: list[dict[str, list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, whether each is a target, and whether it is one at all, each [rows, longest]."""
    ids = pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    wanted = pad_sequence([torch.tensor(row["completion_mask"]) for row in rows], batch_first=True).bool()
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return ids, wanted, (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()


def loss_at_targets(network: nn.Module, ids: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the targets' mean cross-entropy; logits are computed at the positions before any row's target."""
    places = wanted[:, 1:].any(0).nonzero().flatten()
    inputs = {"input_ids": ids} if bool(mask.all()) else {"input_ids": ids, "attention_mask": mask}
    logits = network(**inputs, use_cache=False, logits_to_keep=places).logits
    counted = wanted[:, places + 1]
    return F.cross_entropy(logits[counted].float(), ids[:, places + 1][counted])


def measure(plan: dict[str, Any], shared: Path, peer: str | None) -> dict[str, Any]:
    """Return the rows a second of each side, their ratios over blocks in turns, memory and losses."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = prepare(folder, shared, plan)
        environment = {**os.environ, "OMP_NUM_THREADS": str(plan["n_threads"]), "HF_HUB_OFFLINE": "1"}
        commands = {side: [sys.executable, __file__, "--side", side, str(folder)] for side in SIDES}
        if peer:
            commands["trl"] = [peer, str(Path(__file__).with_name("sft_worker.py")), str(folder)]
        sides = {side: Worker(command, environment) for side, command in commands.items()}
        taken: dict[str, list[float]] = {side: [] for side in sides}
        order = list(sides)
        for number in range(plan["n_steps"] // plan["block"]):
            order = order[1:] + order[:1]
            for side in order:
                said = sides[side].turn()
                taken[side] += [said["wall_s"]] if number else []  # the first block warms up
        ends = {side: worker.end() for side, worker in sides.items()}
    return {"sizes": sizes, **compare(plan, taken, ends)}


def compare(plan: dict[str, Any], taken: dict[str, list[float]], ends: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers of a comparison. taken: seconds a block, by side. ends: losses and memory, by side."""
    times = {side: np.array(of_side) for side, of_side in taken.items()}
    n_rows, own = plan["block"] * plan["batch_size"], times["ours"]
    found: dict[str, Any] = {"rows_per_s": {}, "times_as_fast_as": {}, "memory_of": {}, "loss": {}}
    for side, seconds in times.items():
        found["rows_per_s"][side] = float(n_rows / np.median(seconds))
        found["loss"][side] = {"first": ends[side]["losses"][0], "last": ends[side]["losses"][-1]}
        found["memory_of"][side] = ends[side]["peak_memory_bytes"]
        if side != "ours":
            bar = BARS[side][plan["data"]]
            ratio = median_with_interval(seconds / own)
            found["times_as_fast_as"][side] = {**ratio, "bar": bar, "met": ratio["median"] >= bar}
            check_same(side, found["loss"]["ours"], found["loss"][side])
    if "trl" in times:
        share = found["memory_of"]["ours"] / found["memory_of"]["trl"]
        found["memory_of_trl"] = {"share": share, "bar": MEMORY_BAR, "met": share <= MEMORY_BAR}
    return found


def check_same(side: str, own: dict[str, float], other: dict[str, float]) -> None:
    """Refuse a comparison of sides that did other work."""
    for place in ("first", "last"):
        if abs(own[place] - other[place]) > SAME_LOSS * max(own[place], 0.1):
            raise SystemExit(f"{side}: {place} loss {other[place]:.4f}, ours {own[place]:.4f}: the comparison is void")


def tell(title: str, found: dict[str, Any]) -> None:
    """Print one comparison."""
    rates = ", ".join(f"{side} {rate:.2f}" for side, rate in found["rows_per_s"].items())
    print(f"{title}: rows a second: {rates}")
    for side, ratio in found["times_as_fast_as"].items():
        interval = f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
        print(f"  beside {side}: {interval}, bar {ratio['bar']} ({'met' if ratio['met'] else 'MISSED'})")
    memory = ", ".join(f"{side} {size / 2**20:,.0f} MiB" for side, size in found["memory_of"].items())
    print(f"  memory: {memory}; loss: {found['loss']}", flush=True)


SIDES = {"ours": ours, "by_hand": by_hand}


def main() -> None:
    """Measure, print, write; or be one of the sides."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", help="python of an environment with TRL")
    parser.add_argument("--models", default="smollm2,pocket")
    parser.add_argument("--data", default="news,dialogues")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--precision", default="no", choices=("no", "bf16"))
    parser.add_argument("--blocks", type=int, default=12, help="turns of each side, of which the first doesn't count")
    parser.add_argument("--block", type=int, default=2, help="steps in a turn")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=results_path("sft"))
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    disable_progress_bar()
    if arguments.side:
        SIDES[arguments.side[0]](Path(arguments.side[1]))
        return
    numbers: dict[str, Any] = {}
    for model in arguments.models.split(","):
        for data in arguments.data.split(","):
            for n_threads in map(int, arguments.threads.split(",")):
                plan = {
                    "model": model, "data": data, "n_threads": n_threads, "precision": arguments.precision,
                    "batch_size": BATCH_SIZES[data], "block": arguments.block,
                    "n_steps": arguments.block * arguments.blocks,
                }  # fmt: skip
                title = f"{model}, {data}, {n_threads} threads"
                numbers[title] = measure(plan, arguments.shared, arguments.peer)
                tell(title, numbers[title])
    config = {"batch_sizes": BATCH_SIZES, "learning_rate": LEARNING_RATE, "precision": arguments.precision}
    config |= {"block": arguments.block, "blocks": arguments.blocks, "adapter": "LoRA 16, all linear layers"}
    write(arguments.out, config, numbers)


if __name__ == "__main__":
    main()
