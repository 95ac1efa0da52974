"""What each method keeps and learns on the streams of benchmarks/methods.yaml.

    python benchmarks/methods.py SUITE --out FOLDER [--only a,b] [--set key=value ...] [--seeds 0,1,2]

Writes FOLDER/SUITE/<method> (run folders: what was done stays, what was stopped goes on), a report of all beside them,
and results/methods_SUITE.json: {config, env, numbers}, by method its settings, the metrics of docs/results-schema.md
with 95% intervals over seeds, the bytes kept and the time of training. Methods that FOLDER doesn't hold keep the
numbers that stand there, if these were measured with the same config. `make docs` quotes it in METHODS.md.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from paired import write
from workload import results_path

from everlearn.errors import ConfigError
from everlearn.report.html import write_report
from everlearn.report.text import estimate
from everlearn.report.views import kept_bytes, load_views, mean_cost
from everlearn.runs import is_finished, run_or_resume
from everlearn.state import read_json

SUITES = Path(__file__).with_name("methods.yaml")
METRICS = ("average_accuracy", "backward_transfer", "learning_accuracy", "stability")


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


def main() -> None:
    """Run what is asked for, then write the report and the numbers of all that is done."""
    suites = yaml.safe_load(SUITES.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suite", choices=list(suites))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="methods, with commas between")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    suite = suites[arguments.suite]
    recipe = SUITES.parent.parent / suite["recipe"]
    names = arguments.only.split(",") if arguments.only else list(suite["methods"])
    overrides = ["seed=null", f"seeds=[{arguments.seeds}]", *suite.get("set", ()), *arguments.overrides]
    root = arguments.out / arguments.suite
    for name in names:
        strategies = suite["methods"][name]
        try:
            method = f"strategies={yaml.safe_dump(strategies, default_flow_style=True)}"
            run_or_resume(recipe, root / name, [*overrides, *suite.get("set_for", {}).get(name, ()), method])
        except ConfigError as error:  # the method doesn't suit this stream, and says why
            print(f"{name}: {error}", flush=True)
            continue
        found = numbers_of(root / name, strategies)
        score, change = estimate(found["average_accuracy"]), estimate(found["backward_transfer"], signed=True)
        print(f"{name:20s} {' '.join(score)}, {change[0]}", flush=True)
    done = {name: root / name for name in suite["methods"] if is_finished(root / name)}
    write_report(done, root)
    shared = {name: suite[name] for name in ("recipe", "set", "set_for") if name in suite}
    config = {"suite": arguments.suite, **shared, "seeds": arguments.seeds}
    path = results_path(f"methods_{arguments.suite}")
    before = read_json(path) if path.exists() else {}
    numbers = before["numbers"] if before.get("config") == config else {}
    numbers |= {name: numbers_of(folder, suite["methods"][name]) for name, folder in done.items()}
    write(path, config, {name: numbers[name] for name in suite["methods"] if name in numbers})


if __name__ == "__main__":
    sys.exit(main())
