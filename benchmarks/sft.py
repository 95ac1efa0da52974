"""LoRA training beside TRL's `SFTTrainer` and a loop by hand: the same rows in the same batches, from the same adapter.

    python benchmarks/sft.py [--peer PYTHON] [--models smollm2,pocket] [--data news,dialogues] [--threads 1,2]

PYTHON is the interpreter of another environment that holds TRL (benchmarks/sft_worker.py says how it is made). Rows:
news of AG News (--shared, the folder shared/data) with one word as answer, and dialogues of about 200 tokens made of
them. Each side is a process of its own; they take blocks of steps in turns, so that noise meets all of them. Rows a
second are told as ratios over the blocks, memory as the largest resident size of each process.

The batches are those that everlearn makes (rows of like length together), handed to the others as token ids in their
order. All must begin and end at the same loss, or the comparison is void. benchmarks/gpu.py does the same on a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
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
from everlearn.listener import Listener
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model, path_of
from everlearn.types import Mixture, Task
from everlearn.way import Run

WORDS = {"World": "World", "Sports": "Sports", "Business": "Business", "Science or Technology": "Science"}
BATCH_SIZES = {"news": 8, "dialogues": 4}
LEARNING_RATE = 5e-4
BARS = {"trl": {"news": 1.6, "dialogues": 1.1}, "by_hand": {"news": 0.97, "dialogues": 0.97}}
MEMORY_BAR = 0.8  # of TRL's
SAME_LOSS = 0.05  # relative: sums in another order drift apart over the steps
CAN_PACK = "packing" in {field.name for field in fields(SupervisedLearner)}

Rows = list[dict[str, str]]


def news(articles: Sequence[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield articles with their topic, one word, as answer."""
    for article in articles:
        yield {"prompt": f"{article['text'].strip()}\nTopic:", "completion": f" {WORDS[article['label_name']]}"}


def dialogues(articles: Sequence[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield dialogues of two questions, about 200 tokens, of which the last answer is learned."""
    texts = [" ".join(article["text"].partition("Text:")[2].split()) for article in articles]
    for number in range(0, len(texts) - 2, 3):
        first, *second = texts[number : number + 3]
        prompt = f"User: What is new today?\nAssistant: {first}\nUser: Is there anything else?\nAssistant:"
        yield {"prompt": prompt, "completion": f" {' '.join(second)}"}


MADE: dict[str, Callable[[Sequence[dict[str, Any]]], Iterator[dict[str, str]]]] = {"news": news, "dialogues": dialogues}


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


def read_plan(folder: Path) -> dict[str, Any]:
    """Return a comparison's plan, whose number of threads is used from now on."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    torch.set_num_threads(plan["n_threads"])
    return plan


def turns_of(plan: dict[str, Any]) -> Turns:
    """Return the turns of a side; a block ends when the GPU has done it."""
    return Turns(plan["block"], torch.cuda.synchronize) if plan["device"] == "cuda" else Turns(plan["block"])


def memory(plan: dict[str, Any]) -> dict[str, int]:
    """Return the largest memory on a GPU, as it is told at the end; nothing on a CPU."""
    return {"peak_memory_bytes": torch.cuda.max_memory_allocated()} if plan["device"] == "cuda" else {}


def load(folder: Path, plan: dict[str, Any]) -> tuple[Task, Model]:
    """Return the task and the model of a comparison."""
    rows = [json.loads(line) for line in (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    task = Task("rows", "prompt", rows, rows[:1])
    config = ModelConfig(plan["model"], AdapterConfig(rank=16), dtype=plan["dtype"], chat="never")
    return task, load_model(config, [task])


def prepare(folder: Path, rows: Rows, plan: dict[str, Any]) -> dict[str, Any]:
    """Write a comparison's plan, rows (as texts, and as ids in batch order) and adapter; return its size."""
    n_rows = plan["n_steps"] * plan["batch_size"]
    rows = [rows[number % len(rows)] for number in range(n_rows)]
    (folder / "plan.json").write_text(json.dumps({**plan, "learning_rate": LEARNING_RATE}), encoding="utf-8")
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task, model = load(folder, plan)
    model.network.active_peft_config.base_model_name_or_path = path_of(plan["model"])  # for those without our names
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


def ours(folder: Path, **options: Any) -> None:
    """Train the way users do, in turns."""
    plan = read_plan(folder)
    task, model = load(folder, plan)
    learner = SupervisedLearner(
        epochs=1, batch_size=plan["batch_size"], learning_rate=LEARNING_RATE, precision=plan["precision"],
        group_by_length=True, **options,
    )  # fmt: skip
    listener = InTurns(turns_of(plan))
    accelerator = start_accelerator(precision=learner.precision, device=plan["device"])
    Run(model, learner, [], accelerator, tasks={task.name: task}, listener=listener).learn(task)
    listener.turns.end(losses=listener.losses, **memory(plan))


def ours_packed(folder: Path) -> None:
    """Train with several rows in one sequence."""
    ours(folder, packing=True)


def by_hand(folder: Path) -> None:
    """Train with a plain loop that computes logits where a target is, in turns."""
    plan = read_plan(folder)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[plan["dtype"]]
    network = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter", is_trainable=True, dtype=dtype)
    network = network.to(plan["device"]).train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    losses, turns = [], turns_of(plan)
    turns.begin()
    for start in range(0, len(rows), plan["batch_size"]):
        ids, wanted, mask = (part.to(plan["device"]) for part in padded(rows[start : start + plan["batch_size"]]))
        with torch.autocast(plan["device"], torch.bfloat16, enabled=plan["precision"] == "bf16"):
            loss = loss_at_targets(network, ids, wanted, mask)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        turns.step()
    turns.end(losses=losses, **memory(plan))


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


SIDES: dict[str, Callable[[Path], None]] = {"ours": ours, "by_hand": by_hand, "ours_packed": ours_packed}


def measure(plan: dict[str, Any], rows: Rows, peer: str | None, sides: Sequence[str]) -> dict[str, Any]:
    """Return the rows a second of each side, their ratios over blocks in turns, memory and losses.

    Args:
        plan: model, dtype, precision, device, n_threads, batch_size, block (steps in a turn), n_steps (in all).
        peer: python with TRL, which then is a side too.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = prepare(folder, rows, plan)
        environment = {**os.environ, "OMP_NUM_THREADS": str(plan["n_threads"]), "HF_HUB_OFFLINE": "1"}
        commands = {side: [sys.executable, __file__, "--side", side, str(folder)] for side in sides}
        if peer:
            commands["trl"] = [peer, str(Path(__file__).with_name("sft_worker.py")), str(folder)]
        workers = {side: Worker(command, environment) for side, command in commands.items()}
        try:
            taken, ends = in_turns(workers, plan["n_steps"] // plan["block"])
        finally:
            for worker in workers.values():
                worker.stop()
    return {"sizes": sizes, **compare(plan, taken, ends)}


def in_turns(workers: dict[str, Worker], n_blocks: int) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
    """Return the seconds of each side's blocks without the first, which warms up, and what each tells at its end."""
    for worker in workers.values():
        worker.ready()
    taken: dict[str, list[float]] = {side: [] for side in workers}
    order = list(workers)
    for number in range(n_blocks):
        order = order[1:] + order[:1]
        for side in order:
            said = workers[side].turn()
            taken[side] += [said["wall_s"]] if number else []
    return taken, {side: worker.end() for side, worker in workers.items()}


def compare(plan: dict[str, Any], taken: dict[str, list[float]], ends: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers of a comparison. taken: seconds a block, by side. ends: losses and memory, by side."""
    n_rows, times = plan["block"] * plan["batch_size"], {side: np.array(of_side) for side, of_side in taken.items()}
    losses = {side: {"first": end["losses"][0], "last": end["losses"][-1]} for side, end in ends.items()}
    others = [side for side in times if side != "ours"]
    for side in others:
        check_same(side, losses["ours"], losses[side])
    return {
        "rows_per_s": {side: float(n_rows / np.median(seconds)) for side, seconds in times.items()},
        "times_as_fast_as": {side: median_with_interval(times[side] / times["ours"]) for side in others},
        "memory_bytes": {side: end["peak_memory_bytes"] for side, end in ends.items()},
        "loss": losses,
    }


def check_same(side: str, own: dict[str, float], other: dict[str, float]) -> None:
    """Refuse a comparison of sides that did other work."""
    for place in ("first", "last"):
        if abs(own[place] - other[place]) > SAME_LOSS * max(own[place], 0.1):
            raise SystemExit(f"{side}: {place} loss {other[place]:.4f}, ours {own[place]:.4f}: the comparison is void")


def judge(found: dict[str, Any], data: str) -> None:
    """Add the bars to a comparison, and whether they are met."""
    for side, ratio in found["times_as_fast_as"].items():
        ratio |= {"bar": BARS[side][data], "met": ratio["median"] >= BARS[side][data]}
    if "trl" in found["memory_bytes"]:
        share = found["memory_bytes"]["ours"] / found["memory_bytes"]["trl"]
        found["memory_of_trl"] = {"share": share, "bar": MEMORY_BAR, "met": share <= MEMORY_BAR}


def tell(title: str, found: dict[str, Any]) -> None:
    """Print one comparison."""
    print(f"{title}: rows a second: " + ", ".join(f"{side} {rate:.2f}" for side, rate in found["rows_per_s"].items()))
    for side, ratio in found["times_as_fast_as"].items():
        bar = f", bar {ratio['bar']} ({'met' if ratio['met'] else 'MISSED'})" if "bar" in ratio else ""
        print(f"  beside {side}: {ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}], n {ratio['n']}{bar}")
    sizes = ", ".join(f"{side} {size / 2**20:,.0f} MiB" for side, size in found["memory_bytes"].items())
    ends = ", ".join(f"{side} {loss['first']:.4f} to {loss['last']:.4f}" for side, loss in found["loss"].items())
    print(f"  memory: {sizes}\n  loss: {ends}", flush=True)


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
    articles = parquet.read_table(arguments.shared / "cl15" / "agnews" / "train.parquet").to_pylist()
    numbers: dict[str, Any] = {}
    for model in arguments.models.split(","):
        for data in arguments.data.split(","):
            for n_threads in map(int, arguments.threads.split(",")):
                plan = {
                    "model": model, "dtype": "float32", "precision": arguments.precision, "device": "cpu",
                    "n_threads": n_threads, "batch_size": BATCH_SIZES[data], "block": arguments.block,
                    "n_steps": arguments.block * arguments.blocks,
                }  # fmt: skip
                found = measure(plan, list(MADE[data](articles)), arguments.peer, ("ours", "by_hand"))
                judge(found, data)
                title = f"{model}, {data}, {'1 thread' if n_threads == 1 else f'{n_threads} threads'}"
                numbers[title] = found
                tell(title, found)
    config = {"batch_sizes": BATCH_SIZES, "learning_rate": LEARNING_RATE, "precision": arguments.precision}
    config |= {"block": arguments.block, "blocks": arguments.blocks, "adapter": "LoRA 16, all linear layers"}
    write(arguments.out, config, numbers)


if __name__ == "__main__":
    main()
