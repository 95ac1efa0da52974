"""Answers drawn and learned from, beside TRL's `GRPOTrainer`: the same model, problems, lengths and answers.

    python benchmarks/rollout.py [--peer PYTHON] [--sizes 16x8,48x16] [--works draw,judged,differ] [--turns 12]
    python benchmarks/rollout.py --peer PYTHON --sizes 48x16 --works judged --turns 6 --out FILE    # one of them alone

PYTHON is the interpreter of another environment that holds TRL (benchmarks/sft_worker.py says how it is made). The
model is pocket, all weights trained, after a short warm start on Countdown, so that its answers end as they do in a
run. Each side is a process of its own; they take turns, so that noise meets all of them, and the first turn doesn't
count. draw: response tokens a second, the copy's refresh included. learn: an optimizer step of the same answers, as
they are judged (`judged`: equal ones once, problems without advantage left out), and with random rewards (`differ`:
no problem is left out). Log-probabilities must be equal to 1e-5 and gradient norms to 1%, or the comparison is void.

Ratios are told of wall time, and of processor time, which leaves out when other programs held the core.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paired import median_with_interval, write
from transformers.utils.logging import disable_progress_bar
from turns import Turns, Worker
from workload import results_path

from everlearn.evaluation.score import is_right
from everlearn.learners.devices import start_accelerator
from everlearn.learners.ppo import PPO, _Lesson
from everlearn.learners.sft import SupervisedLearner
from everlearn.listener import Listener
from everlearn.models.dtypes import fast_dtype
from everlearn.models.load import POCKET, AdapterConfig, Model, ModelConfig, load_model
from everlearn.models.objectives import item_losses
from everlearn.rl.advantages import group_advantages
from everlearn.rl.rollouts import Answered, distinct, lay_out
from everlearn.rl.sampler import Sampler
from everlearn.seeds import generator_for
from everlearn.streams.countdown.stream import CountdownStream
from everlearn.types import Mixture, Task
from everlearn.way import Run

STREAM = CountdownStream(groups=("0", "1"), n_train=200, n_eval=1, tags="none")
N_WARM = 150  # rows of each group
ROOM = 16  # tokens of an answer, at most
LEARNING_RATE = 1e-12  # the weights stay as they are, so that every turn does the same work
BARS = {"draw": 2.5, "learn": 2.0}  # times as fast as TRL, by default settings
SAME_LOG_P, SAME_NORM = 1e-5, 0.01

Ask = Callable[[Path, dict[str, Any], str], None]


class Quiet(Listener):
    """Says nothing: what is printed is part of the turns."""

    def note(self, text: str) -> None:
        """Say nothing."""


def run_of(name: str, learner: Any, precision: str = "no") -> Run:
    """Return a run of a model, all of whose weights are trained."""
    tasks = {task.name: task for task in STREAM.build()}
    model = load_model(ModelConfig(name, AdapterConfig("full"), chat="never"), list(tasks.values()), 0)
    accelerator = start_accelerator(device="cpu", precision=precision)
    return Run(model, learner, [], accelerator, tasks=tasks, listener=Quiet())


def warm(folder: Path) -> None:
    """Save pocket after a few right answers of each group."""
    run = run_of(POCKET, SupervisedLearner(epochs=4, learning_rate=2e-3, schedule="linear", early_stopping=False))
    rows = [dict(row) for task in run.tasks.values() for row in task.train[:N_WARM]]
    run.learn(Task("warm", "prompt", rows, rows[:1]))
    run.model.network.save_pretrained(folder)
    run.model.tokenizer.save_pretrained(folder)


def prepare(folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Write a comparison's plan, its prompts, and answers with their rewards; return what they are like."""
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    run = run_of(plan["model"], PPO())
    task = run.tasks["1"]
    rows = [dict(row) for row in task.train[N_WARM:] + task.train[:N_WARM]][: plan["n_prompts"]]
    prompts = run.model.objective.questions(rows, ROOM)
    (folder / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    drawn = Sampler(run.model, torch.device("cpu"), "float32").draw(prompts, plan["n_samples"], ROOM, generator_for(0))
    answered = []
    for row, prompt, responses in zip(rows, prompts, drawn, strict=True):
        one = Answered(task, row, (0, 0), prompt, *distinct(responses))
        for ids in one.responses:
            one.right.append(is_right(task, run.model.objective.answer_of(ids), row, run.model.objective))
        one.rewards = [float(right) for right in one.right]
        answered.append(one)
    for name in ("judged", "differ"):
        (folder / name).mkdir()
        if name == "differ":
            for number, one in enumerate(answered):
                one.rewards = torch.rand(len(one.responses), generator=generator_for(number)).tolist()
        write_answers(folder / name, answered, plan)
    lengths = [len(ids) for responses in drawn for ids in responses]
    return {
        "prompt_tokens": float(np.mean([len(prompt) for prompt in prompts])),
        "answer_tokens": float(np.mean(lengths)),
        "different_answers": sum(len(one.responses) for one in answered) / len(lengths),
        "problems_with_advantage": float(np.mean([len(set(one.right)) > 1 for one in answered])),
        "right": float(
            np.mean(
                [right for one in answered for right, n in zip(one.right, one.counts, strict=True) for _ in range(n)]
            )
        ),
    }


def write_answers(folder: Path, answered: Sequence[Answered], plan: dict[str, Any]) -> None:
    """Write answers for both sides: as ours has them, and one by one with their advantages."""
    kept = ("row", "prompt", "responses", "counts", "rewards")
    ours = [{name: getattr(one, name) for name in kept} for one in answered]
    one_by_one = []
    for one in answered:
        repeated = [i for i, count in enumerate(one.counts) for _ in range(count)]
        advantages = group_advantages(torch.tensor([[one.rewards[i] for i in repeated]]))[0].tolist()
        one_by_one += [
            {"prompt": one.prompt, "answer": one.responses[i], "advantage": advantage}
            for i, advantage in zip(repeated, advantages, strict=True)
        ]
    (folder / "ours.json").write_text(json.dumps(ours), encoding="utf-8")
    (folder / "answers.json").write_text(json.dumps(one_by_one), encoding="utf-8")
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")


def draw(folder: Path, plan: dict[str, Any], dtype: str) -> None:
    """Answer the prompts in turns."""
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    sampler = Sampler(run_of(plan["model"], PPO()).model, torch.device("cpu"), dtype)
    turns, n_tokens = Turns(1), []
    turns.begin()
    for number in range(plan["n_turns"]):
        sampler.refresh()
        drawn = sampler.draw(prompts, plan["n_samples"], ROOM, generator_for(number))
        n_tokens.append(sum(len(ids) for responses in drawn for ids in responses))
        turns.step()
    turns.end(n_tokens=n_tokens)


def learn(folder: Path, plan: dict[str, Any], dtype: str) -> None:
    """Learn from the answers in turns, as an iteration of PPO does."""
    precision = "bf16" if dtype == "bfloat16" else "no"
    options = {"prompts": plan["n_prompts"], "samples": plan["n_samples"], "max_new_tokens": ROOM}
    run = run_of(
        plan["model"], PPO(iterations=1, learning_rate=LEARNING_RATE, precision=precision, **options), precision
    )
    task = run.tasks["1"]
    kept = json.loads((folder / "ours.json").read_text(encoding="utf-8"))
    answered = [Answered(task, address=(0, number), **one) for number, one in enumerate(kept)]
    lesson = _Lesson(run.learner, run, task, Mixture.of(task), None)
    run.model.network.eval()
    turns, norms = Turns(1), []
    turns.begin()
    for number in range(plan["n_turns"]):
        norms.append(lesson._learn(number, answered)["gradient_norm"])
        turns.step()
    torch.save(log_p(run.model, answered, packed=lesson.packed), folder / f"ours_{dtype}.pt")
    turns.end(gradient_norms=norms)


@torch.no_grad()
def log_p(model: Model, answered: list[Answered], *, packed: bool) -> torch.Tensor:
    """Return the log-probabilities of all answers' tokens, one answer after another, as often as each was drawn."""
    found = []
    for one in answered:
        outputs = model.objective.forward(model.network, lay_out(model, [one], packed=packed))
        of_answers = (-item_losses(outputs)).split([len(ids) for ids in one.responses])
        found += [values for values, count in zip(of_answers, one.counts, strict=True) for _ in range(count)]
    return torch.cat(found)


WORKS: dict[str, Ask] = {"draw": draw, "learn": learn}


def measure(folder: Path, plan: dict[str, Any], work: str, peer: str | None) -> dict[str, Any]:
    """Return seconds of each side's turns without the first, and what it tells at its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(plan["n_threads"]), "HF_HUB_OFFLINE": "1"}
    commands = {}
    for dtype in ("float32", "bfloat16"):
        commands[f"ours_{dtype}"] = [sys.executable, __file__, "--side", str(folder), work, dtype]
        if peer:
            worker = str(Path(__file__).with_name("rollout_worker.py"))
            commands[f"trl_{dtype}"] = [peer, worker, str(folder), work, dtype, f"trl_{dtype}"]
    workers = {side: Worker(command, environment) for side, command in commands.items()}
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in workers}
    try:
        for worker in workers.values():
            worker.ready()
        order = list(workers)
        for number in range(plan["n_turns"]):
            order = order[1:] + order[:1]
            for side in order:
                said = workers[side].turn()
                taken[side] += [said] if number else []
        ends = {side: worker.end() for side, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.stop()
    if work == "learn":
        check_norms(ends)
    return compare(work, taken, ends)


def compare(work: str, taken: dict[str, list[dict[str, float]]], ends: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the speed of each side, and how many times as fast as each of TRL's ours is, over the turns.

    Args:
        taken: of each side's turns but the first, wall_s and cpu_s. ends: n_tokens of all its turns, where it drew.
    """
    per = {
        side: np.array(end["n_tokens"][1:] if work == "draw" else [1.0] * len(taken[side]))
        for side, end in ends.items()
    }
    costs = {
        clock: {side: np.array([turn[clock] for turn in turns]) / per[side] for side, turns in taken.items()}
        for clock in ("wall_s", "cpu_s")
    }
    found: dict[str, Any] = {"memory_bytes": {side: end["peak_memory_bytes"] for side, end in ends.items()}}
    unit = "tokens_per_s" if work == "draw" else "steps_per_s"
    found[unit] = {side: float(1 / np.median(cost)) for side, cost in costs["wall_s"].items()}
    found[f"{unit}_of_processor"] = {side: float(1 / np.median(cost)) for side, cost in costs["cpu_s"].items()}
    found["times_as_fast"] = {
        f"{ours} as {other}": {clock: median_with_interval(of[other] / of[ours]) for clock, of in costs.items()}
        for ours in ends for other in ends if ours.startswith("ours") and other.startswith("trl")
    }  # fmt: skip
    return found


def check_norms(ends: dict[str, dict[str, Any]]) -> None:
    """Refuse a comparison of sides whose gradients differ, in float32."""
    norms = {side: end["gradient_norms"][0] for side, end in ends.items() if side.endswith("float32")}
    if max(norms.values()) > (1 + SAME_NORM) * min(norms.values()):
        raise SystemExit(f"gradient norms differ, {norms}: the comparison is void")


def check_same(folder: Path) -> float | None:
    """Return how far the log-probabilities of the two sides are apart at most, in float32.

    Raises:
        SystemExit: if that is more than rounding.
    """
    sides = [folder / f"{side}_float32.pt" for side in ("ours", "trl")]
    if not all(side.is_file() for side in sides):
        return None
    ours, other = map(torch.load, sides)
    apart = (ours - other).abs().max().item()
    if apart > SAME_LOG_P:
        raise SystemExit(f"log-probabilities are up to {apart:.2g} apart: the comparison is void")
    return apart


def judge(found: dict[str, Any], work: str) -> None:
    """Add the bars to what they are for: ours as it is by default, beside TRL in float32."""
    ours = f"ours_{fast_dtype('cpu')}" if work == "draw" else "ours_float32"
    for clock, ratio in found["times_as_fast"].get(f"{ours} as trl_float32", {}).items():
        found.setdefault("bar", {"times": BARS[work]})[clock] = ratio["median"] >= BARS[work]


def tell(title: str, found: dict[str, Any]) -> None:
    """Print one comparison."""
    for name in [name for name in found if "_per_s" in name]:
        print(f"{title}: {name}: " + ", ".join(f"{side} {rate:.4g}" for side, rate in found[name].items()))
    for pair, ratio in found["times_as_fast"].items():
        said = [f"{clock} {r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for clock, r in ratio.items()]
        print(f"  {pair}: {', '.join(said)}, n {ratio['wall_s']['n']}")
    if "bar" in found:
        print(f"  bar {found['bar']}")
    sys.stdout.flush()


def main() -> None:
    """Measure, print, write; or be one of the sides."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", help="python of an environment with TRL")
    parser.add_argument("--sizes", default="16x8,48x16", help="problems x answers to each")
    parser.add_argument("--works", default="draw,judged,differ", help="what is compared")
    parser.add_argument("--turns", type=int, default=12, help="of each side, of which the first doesn't count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=results_path("rollout"))
    parser.add_argument("--side", nargs=3, metavar=("FOLDER", "WORK", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    disable_progress_bar()
    if arguments.side:
        folder, work, dtype = arguments.side
        plan = json.loads((Path(folder) / "plan.json").read_text(encoding="utf-8"))
        torch.set_num_threads(plan["n_threads"])
        WORKS[work](Path(folder), plan, dtype)
        return
    torch.set_num_threads(arguments.threads)
    numbers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        warm(model)
        for size in arguments.sizes.split(","):
            n_prompts, n_samples = map(int, size.split("x"))
            plan = {
                "model": str(model), "n_prompts": n_prompts, "n_samples": n_samples, "room": ROOM,
                "learning_rate": LEARNING_RATE, "n_threads": arguments.threads, "n_turns": arguments.turns,
            }  # fmt: skip
            folder = Path(name) / size
            folder.mkdir()
            numbers[size] = {"answers": prepare(folder, plan)}
            print(f"{size}: " + ", ".join(f"{what} {value:.3g}" for what, value in numbers[size]["answers"].items()))
            for title in arguments.works.split(","):
                work, place = ("draw", folder) if title == "draw" else ("learn", folder / title)
                found = measure(place, plan, work, arguments.peer)
                if work == "learn":
                    found["log_p_apart"] = check_same(place)
                judge(found, work)
                numbers[size][title] = found
                tell(f"{size}, {title}", found)
    write(arguments.out, {"stream": asdict(STREAM), "turns": arguments.turns, "threads": arguments.threads}, numbers)


if __name__ == "__main__":
    main()
