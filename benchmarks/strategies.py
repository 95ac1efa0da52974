"""What each method costs beside a bare PyTorch loop that trains on the same rows, and beside Avalanche 0.6.

    python benchmarks/strategies.py [--rounds N] [--avalanche PYTHON] [--only a,b] [--out FILE]

Two tasks; the second one is timed, step by step: each step of ours is followed at once by one of the bare loop (batches
from a DataLoader, forward, backward, step; no method), so that noise meets both. PYTHON is the interpreter of another
environment that holds Avalanche (benchmarks/avalanche_worker.py says how it is made); its steps are paired with the
same bare loop there, in turns with ours. A method's own work (a replayed row, a second pass) is in its ratio.
"""

import argparse
import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bare import BareLoop
from loop import PairedListener
from matplotlib.figure import Figure
from paired import Pairs, write
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from workload import FIVE_MILLION, make_model, make_task, results_path, target_loss, use_one_thread

from everlearn import registry
from everlearn.config import build_strategies
from everlearn.learners.devices import start_accelerator
from everlearn.learners.sft import SupervisedLearner
from everlearn.models.load import load_model
from everlearn.models.plain import mlp
from everlearn.report.style import COLOURS, GREY, new_figure, save, tidy
from everlearn.seeds import generator_for, seed_for
from everlearn.strategy import Strategy
from everlearn.types import Task, TensorRows
from everlearn.way import Run

N_ROWS, BATCH_SIZE, RATE = 3200, 64, 0.01
# the settings of the comparison; methods that are not named here have their defaults. lwf_cached asks the teacher once,
# before the task, which isn't in the time of its steps: one forward pass over the task's rows
SETTINGS: dict[str, dict[str, Any]] = {
    "lwf_cached": {"name": "lwf", "cache_top_k": 10},
    "replay": {"capacity": 500},
    "gem": {"capacity": 256},
    "agem": {"capacity": 256, "batch_size": 64},
    "lwf": {"strength": 1.0, "temperature": 2.0},
    "ewc": {"strength": 1.0},
    "si": {"strength": 1.0},
}
# there a batch has 8 rows, and a memory takes as many
LORA_SETTINGS: dict[str, dict[str, Any]] = {**SETTINGS, "agem": {"capacity": 256, "batch_size": 8}}
PEERS = {"none": "Naive", "ewc": "EWC", "si": "SI", "lwf": "LwF", "gem": "GEM", "agem": "AGEM", "replay": "Replay"}
BARS = {"none": 1.05, "ewc": 1.15, "si": 1.25, "lwf": 1.4, "agem": 1.9, "gem": 2.5, "replay": 1.6}
LORA_BARS = dict.fromkeys(("l2", "ewc", "si", "mas", "rwalk"), 1.05)
SKIPPED = ("joint", "gdumb", "sdft")  # don't train on the second task's rows, or generate: nothing to pair with


def tensor_task(number: int) -> Task:
    """Return a task of random rows: 784 inputs, 10 classes."""
    generator = generator_for("benchmark", "rows", number)
    x = torch.randn(N_ROWS, 784, generator=generator)
    y = torch.randint(0, 10, (N_ROWS,), generator=generator)
    return Task(f"task_{number}", "tensor", TensorRows(x, y), TensorRows(x[:10], y[:10]))


def tensor_loss(network: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    """Return the cross-entropy, in plain PyTorch."""
    return F.cross_entropy(network(batch[0]), batch[1])


def time_plain(names: list[str], n_epochs: int, n_tasks: int = 2) -> dict[str, Any]:
    """Return the numbers of methods on the MLP 784-256-256-10, SGD, batches of 64; the last of `n_tasks` is timed."""
    tasks = [replace(tensor_task(min(number, 9)), name=f"task_{number}") for number in range(n_tasks)]
    with torch.random.fork_rng():
        torch.manual_seed(seed_for("benchmark", "mlp"))
        network = mlp(784, 10)
    model = load_model(copy.deepcopy(network), tasks)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    data = DataLoader(TensorDataset(tasks[-1].train.x, tasks[-1].train.y), batch_size=BATCH_SIZE, shuffle=True)
    bare = BareLoop(network, optimizer, data, tensor_loss)
    options = {"optimizer": "sgd", "learning_rate": RATE, "batch_size": BATCH_SIZE, "clip": None}
    strategies = _built(names, SETTINGS)
    return _time(model, tasks, strategies, bare, SupervisedLearner(epochs=1, **options), n_epochs)


def time_lora(names: list[str], n_steps: int) -> dict[str, Any]:
    """Return the numbers of methods on a Llama of 5 M parameters with LoRA, AdamW, batches of 8 rows of 128 tokens."""
    n_rows = FIVE_MILLION.batch_size * n_steps
    tasks = [replace(make_task(FIVE_MILLION, n_rows), name=f"words_{number}") for number in range(2)]
    model = make_model(FIVE_MILLION, tasks[0])
    network = copy.deepcopy(model.network)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0, fused=True)
    features = model.objective.encode(tasks[1].train, tasks[1])
    data = DataLoader(features, batch_size=FIVE_MILLION.batch_size, shuffle=True, collate_fn=model.objective.collate)
    bare = BareLoop(network, optimizer, data, target_loss)
    learner = SupervisedLearner(epochs=1, batch_size=FIVE_MILLION.batch_size, clip=None)
    return _time(model, tasks, _built(names, LORA_SETTINGS), bare, learner, n_epochs=1)


def _built(names: list[str], settings: dict[str, dict[str, Any]]) -> list[Strategy]:
    return build_strategies([{"name": name, **settings.get(name, {})} for name in names])


def _class(name: str) -> type[Strategy]:
    return registry.find("strategy", SETTINGS.get(name, {}).get("name", name))


def _time(
    model: Any,
    tasks: list[Task],
    strategies: list[Strategy],
    bare: BareLoop,
    learner: SupervisedLearner,
    n_epochs: int,
) -> dict[str, Any]:
    accelerator = start_accelerator(device="cpu")
    run = Run(model, learner, strategies, accelerator, tasks={task.name: task for task in tasks})
    for number, task in enumerate(tasks[:-1]):
        run.position = number
        run.learn(task)
    run.position = len(tasks) - 1
    run.listener = PairedListener(bare)
    run.learner = replace(learner, epochs=n_epochs)
    run.learn(tasks[-1])
    numbers = run.listener.pairs.numbers()
    return {**numbers, "bytes_kept": sum(strategy.state_bytes() for strategy in strategies)}


class Avalanche:
    """The other environment: told a method's name, it times it and answers in JSON."""

    def __init__(self, python: str):
        worker = Path(__file__).with_name("avalanche_worker.py")
        self.process = subprocess.Popen(
            [python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.versions = json.loads(self.process.stdout.readline())

    def time(self, name: str, n_epochs: int) -> dict[str, Any]:
        """Return the numbers of one of Avalanche's strategies, paired with the bare loop there."""
        print(json.dumps({"strategy": name, "n_epochs": n_epochs}), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        pairs = Pairs([tuple(p) for p in answer["first"]], [tuple(p) for p in answer["second"]])
        return pairs.numbers()

    def close(self) -> None:
        """End the other process."""
        self.process.stdin.close()
        self.process.wait(timeout=60)


def together(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return several rounds as one: the median round's ratio, and all rounds' ratios."""
    ordered = sorted(rounds, key=lambda numbers: numbers["ratio"]["median"])
    return {**ordered[len(ordered) // 2], "rounds": [numbers["ratio"]["median"] for numbers in rounds]}


def growth(name: str, n_epochs: int) -> dict[str, dict[str, Any]]:
    """Return a method's step time and bytes kept in the last of 2, 11 and 101 tasks: after 1, 10 and 100."""
    return {str(n): time_plain([name], n_epochs, n_tasks=n + 1) for n in (1, 10, 100)}


def main() -> None:
    """Measure, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="epochs of 50 steps in a round")
    parser.add_argument("--lora-steps", type=int, default=40)
    parser.add_argument("--avalanche", help="python of an environment with Avalanche 0.6")
    parser.add_argument("--only", help="methods, with commas between; the file keeps its numbers of the others")
    parser.add_argument("--skip-growth", action="store_true", help="leave out 1, 10 and 100 tasks")
    parser.add_argument("--out", type=Path, default=results_path("strategies"))
    arguments = parser.parse_args()
    use_one_thread()
    names = arguments.only.split(",") if arguments.only else [*registry.names("strategy"), "lwf_cached"]
    names = [name for name in names if name not in SKIPPED]
    avalanche = Avalanche(arguments.avalanche) if arguments.avalanche else None
    peer = avalanche.versions if avalanche else None
    numbers: dict[str, Any] = {"mlp": {}, "avalanche": {}, "lora": {}, "growth": {}}
    if arguments.out.exists() and (arguments.only or arguments.skip_growth):
        kept = json.loads(arguments.out.read_text(encoding="utf-8"))
        numbers, peer = kept["numbers"], peer or kept["config"]["peer"]
    for name in names:
        unsuited = _class(name).unsuited
        if not {"tensor", "full", "task_head"} & set(unsuited):
            ours, theirs = [], []
            for _ in range(arguments.rounds):
                ours.append(time_plain([name], arguments.epochs))
                if avalanche and name in PEERS:
                    theirs.append(avalanche.time(PEERS[name], arguments.epochs))
            numbers["mlp"][name] = together(ours)
            _say("mlp", name, numbers["mlp"][name], BARS.get(name))
            if theirs:
                numbers["avalanche"][name] = together(theirs)
                _say("  Avalanche", PEERS[name], numbers["avalanche"][name], None)
        if not {"causal", "lora"} & set(unsuited):
            numbers["lora"][name] = time_lora([name], arguments.lora_steps)
            _say("lora", name, numbers["lora"][name], LORA_BARS.get(name))
    for name in ("ewc", "si", "mas", "l2") if not arguments.skip_growth else ():
        numbers["growth"][name] = growth(name, arguments.epochs)
        told = {n: (round(found["first_ms"], 3), found["bytes_kept"]) for n, found in numbers["growth"][name].items()}
        print(f"{name}: after so many tasks, (ms a step, bytes kept): {told}", flush=True)
    config = {"rounds": arguments.rounds, "epochs": arguments.epochs, "lora_steps": arguments.lora_steps}
    config |= {"settings": SETTINGS, "peer": peer}
    if avalanche:
        avalanche.close()
    write(arguments.out, config, numbers)
    save(draw(numbers), arguments.out.with_suffix(".png"))


def draw(numbers: dict[str, Any]) -> Figure:
    """Return a row for each method, cheapest on top: its ratio on both models, Avalanche's, and the bar."""
    names = sorted({*numbers["mlp"], *numbers["lora"]}, key=lambda name: -_ratio(numbers, name))
    series = (
        ("mlp", "MLP 784-256-256-10", "o"),
        ("lora", "LoRA on 5 M parameters", "^"),
        ("avalanche", "Avalanche 0.6, the same MLP", "s"),
    )
    figure = new_figure(8.6, 1.4 + 0.27 * len(names))
    axes = figure.subplots()
    for place, (key, label, marker) in enumerate(series):
        rows = [(numbers[key][name]["ratio"], row) for row, name in enumerate(names) if name in numbers[key]]
        if not rows:
            continue
        colour = COLOURS[place]
        axes.hlines([row for _, row in rows], [r["low"] for r, _ in rows], [r["high"] for r, _ in rows], color=colour)
        axes.scatter([r["median"] for r, _ in rows], [row for _, row in rows], color=colour, marker=marker, label=label)
    bars = [(BARS[name], row) for row, name in enumerate(names) if name in BARS]
    axes.scatter(*zip(*bars, strict=True), marker="|", s=130, color="black", label="the bar for the MLP", zorder=1)
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set_xscale("log")
    ticks = [t for t in (1, 1.5, 2, 3, 5, 10, 20, 50) if t < 1.3 * axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("time of a training step, bare PyTorch loop on the same rows = 1, median with 95% interval")
    axes.legend(loc="upper right", frameon=False)
    tidy(axes, "x")
    return figure


def _ratio(numbers: dict[str, Any], name: str) -> float:
    found = next(numbers[key][name] for key in ("mlp", "lora") if name in numbers[key])
    return found["ratio"]["median"]


def _say(where: str, name: str, numbers: dict[str, Any], bar: float | None) -> None:
    wall, cpu = numbers["ratio"], numbers["cpu_ratio"]
    said = f", bar {bar:g}: {'met' if wall['median'] <= bar else 'MISSED'}" if bar else ""
    print(
        f"{where:12s} {name:20s} ratio {wall['median']:.3f} [{wall['low']:.3f}, {wall['high']:.3f}],"
        f" processor time {cpu['median']:.3f}{said}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
