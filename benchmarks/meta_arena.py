"""Whether learning to learn helps on the arena: recipes/meta_arena.yaml over seeds, begun or gone on with.

    python benchmarks/meta_arena.py --out FOLDER [--seeds 8] [--set key=value ...]

Writes FOLDER (docs/meta.md), results/meta_arena.json: {config, env, numbers}, and its picture. The starts take
their steps on the same rows and are scored on the same items; intervals are over seeds.
"""

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

from paired import write
from workload import results_path, use_one_thread

from everlearn.kinds.meta.kind import Meta
from everlearn.kinds.meta.recipe import load_meta_recipe
from everlearn.report.meta import PICTURE
from everlearn.runs import run_or_resume

RECIPE = Path(__file__).parents[1] / "recipes" / "meta_arena.yaml"


def main() -> None:
    """Run the recipe, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, default=results_path("meta_arena"))
    arguments = parser.parse_args()
    use_one_thread()
    recipe = load_meta_recipe(RECIPE, [f"seeds={list(range(arguments.seeds))}", *arguments.overrides])
    results = run_or_resume(recipe, arguments.out)
    for part in ("scores", "differences"):
        for name, by_steps in results["summary"][part].items():
            print(name, {n: [entry["mean"], entry["low"], entry["high"]] for n, entry in by_steps.items()})
    write(arguments.json, asdict(recipe), results["summary"])
    Meta.draw({arguments.out.name: arguments.out}, arguments.out)
    shutil.copy(arguments.out / PICTURE, arguments.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
