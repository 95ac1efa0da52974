"""What each method keeps and learns on the streams of benchmarks/methods.yaml.

    python benchmarks/methods.py SUITE --out FOLDER [--only a,b] [--set key=value ...] [--seeds 0,1,2]

Each method and seed is a run of its own, FOLDER/SUITE/<method>/seed-<n>: what was done stays, what was stopped goes on.
All methods learn with the first seed before any does with the next. After each run results/methods_SUITE.json holds
what is done so far: {config, env, numbers}, by method its settings, the metrics of docs/results-schema.md with 95%
intervals, the bytes kept and the time of training. Methods that FOLDER doesn't hold keep the numbers that stand there,
if these were measured with the same config. `make docs` quotes it in METHODS.md. A report of all lies in FOLDER/SUITE.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from paired import write
from workload import results_path

from everlearn.errors import ConfigError
from everlearn.report.html import write_report
from everlearn.report.records import RESULTS_LOG
from everlearn.report.results import write_results
from everlearn.report.text import estimate
from everlearn.report.views import kept_bytes, load_views, mean_cost
from everlearn.runs import is_finished, run_or_resume
from everlearn.state import read_json, write_file

SUITES = Path(__file__).with_name("methods.yaml")
METRICS = ("average_accuracy", "backward_transfer", "learning_accuracy", "stability")
SEEDS = (0, 1, 2)  # of a suite that names none


def seeds_of(suite: Mapping[str, Any], method: str) -> Sequence[int]:
    """Return the seeds with which a suite wants a method."""
    return suite.get("seeds_for", {}).get(method, suite.get("seeds", SEEDS))


def join_seeds(folder: Path) -> None:
    """Write the logs of a method's finished seeds into one beside them, as of a run over all these seeds."""
    seeds = sorted(filter(is_finished, folder.glob("seed-*")), key=lambda seed: int(seed.name.removeprefix("seed-")))
    logs = [(seed / RESULTS_LOG).read_text(encoding="utf-8").splitlines() for seed in seeds]
    headers = [json.loads(log[0]) for log in logs]
    tasks = {seed: names for header in headers for seed, names in header["tasks"].items()}
    recipe = {**headers[0]["recipe"], "seeds": [int(seed) for seed in tasks]}
    joined = [json.dumps({**headers[0], "recipe": recipe, "tasks": tasks}), *(line for log in logs for line in log[1:])]
    write_file(folder / RESULTS_LOG, "".join(f"{line}\n" for line in joined).encode())
    write_results(folder)


def numbers_of(folder: Path, strategies: list[Any]) -> dict[str, Any]:
    """Return what a finished run showed."""
    results = read_json(folder / "results.json")
    (view,) = load_views({folder.name: folder})
    return {
        "strategies": strategies,
        "n_seeds": len(results["seeds"]),
        **{name: results["summary"][name] for name in METRICS},
        "bytes_kept": sum(kept_bytes(view).values()),
        "train_s": mean_cost(view)["train_s"],
    }


def write_numbers(name: str, suite: Mapping[str, Any], seeds: str | None, done: Mapping[str, Path]) -> None:
    """Write the numbers of all methods that are done, beside those that were measured before with the same config."""
    shared = {key: suite[key] for key in ("recipe", "set", "set_for", "seeds_for") if key in suite}
    config = {"suite": name, **shared, "seeds": seeds or ",".join(map(str, suite.get("seeds", SEEDS)))}
    path = results_path(f"methods_{name}")
    before = read_json(path) if path.exists() else {}
    numbers = before["numbers"] if before.get("config") == config else {}
    numbers |= {method: numbers_of(folder, suite["methods"][method]) for method, folder in done.items()}
    write(path, config, {method: numbers[method] for method in suite["methods"] if method in numbers})


def main() -> None:
    """Run what is asked for; write the numbers after each run, and at the end the report of all that is done."""
    suites = yaml.safe_load(SUITES.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suite", choices=list(suites))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="methods, with commas between")
    parser.add_argument("--seeds", help="with commas between; else the suite's")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    suite, root = suites[arguments.suite], arguments.out / arguments.suite
    recipe = SUITES.parent.parent / suite["recipe"]
    names = arguments.only.split(",") if arguments.only else list(suite["methods"])
    asked = [int(seed) for seed in arguments.seeds.split(",")] if arguments.seeds else None
    wanted = {name: asked or seeds_of(suite, name) for name in names}
    seeds = dict.fromkeys(seed for of_method in wanted.values() for seed in of_method)
    for seed, name in [(seed, name) for seed in seeds for name in names if seed in wanted[name]]:
        strategies = yaml.safe_dump(suite["methods"][name], default_flow_style=True)
        overrides = [*suite.get("set", ()), *arguments.overrides, *suite.get("set_for", {}).get(name, ())]
        overrides += ["seed=null", f"seeds=[{seed}]", f"strategies={strategies}"]
        try:
            run_or_resume(recipe, root / name / f"seed-{seed}", overrides)
        except ConfigError as error:  # the method doesn't suit this stream, and says why
            print(f"{name}: {error}", flush=True)
            continue
        join_seeds(root / name)
        found = numbers_of(root / name, suite["methods"][name])
        score, change = estimate(found["average_accuracy"]), estimate(found["backward_transfer"], signed=True)
        print(f"{name:20s} {' '.join(score)}, {change[0]}; {found['n_seeds']} seeds", flush=True)
        done = {method: root / method for method in suite["methods"] if is_finished(root / method)}
        write_numbers(arguments.suite, suite, arguments.seeds, done)
    done = {method: root / method for method in suite["methods"] if is_finished(root / method)}
    write_report(done, root)


if __name__ == "__main__":
    sys.exit(main())
