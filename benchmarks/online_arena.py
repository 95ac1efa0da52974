"""What learning online gives on the arena: the recipes recipes/online_*.yaml of pocket and SmolLM2, over their seeds.

    python benchmarks/online_arena.py --out FOLDER [--only a,b]

Writes FOLDER/RECIPE (run folders: what was done stays, what was stopped goes on), FOLDER/compare_GROUP, the pictures of
the groups, and results/online_arena.json: {config, env, numbers}, by recipe the measures of docs/online.md with 95%
intervals over seeds.
"""

import argparse
import shutil
from pathlib import Path

from paired import write
from workload import results_path, use_one_thread

from everlearn.report.online_page import write_online_report
from everlearn.runs import is_finished, run_or_resume

RECIPES = Path(__file__).parents[1] / "recipes"
GROUPS = {  # what stands side by side: the short name there, and the recipe
    "mixed": {
        "LoRA": "online_lora",
        "LoRA + replay": "online_replay",
        "LoRA + replay + EWC": "online_replay_ewc",
        "O-LoRA": "online_olora",
        "soft prompt": "online_soft_prompt",
    },
    "sequential": {
        "plain": "online_sequential",
        "replay": "online_sequential_replay",
        "EWC": "online_sequential_ewc",
        "replay + EWC": "online_sequential_replay_ewc",
    },
    "curriculum": {"drawn evenly": "online_curriculum_off", "curriculum": "online_curriculum_on"},
    "five_types": {"LoRA": "online_five_types"},
    "drift": {"rate raised at drift": "online_drift", "not noticed": "online_drift_unnoticed"},
    "defaults": {"pocket": "online_defaults"},
    "smollm2": {"SmolLM2, steps": "online_smollm2"},
}
HOURS = ("online_smollm2",)  # run where they are asked for by name
PICTURES = {"sequential": "types.png", "drift": "types.png", "smollm2": "learning_curves.png"}
MEASURES = ("initial_accuracy", "final_accuracy", "peak_accuracy", "improvement", "backward_transfer", "by_type")


def main() -> None:
    """Run what is asked for, then write the numbers and pictures of all that is done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="recipes, with commas between")
    arguments = parser.parse_args()
    use_one_thread()
    everything = [name for group in GROUPS.values() for name in group.values() if name not in HOURS]
    for name in arguments.only.split(",") if arguments.only else everything:
        folder = arguments.out / name
        run_or_resume(RECIPES / f"{name}.yaml", folder)
        print(f"{name}: done", flush=True)
    numbers = {}
    for group, members in GROUPS.items():
        done = {short: arguments.out / name for short, name in members.items() if is_finished(arguments.out / name)}
        if not done:
            continue
        compared = arguments.out / f"compare_{group}"
        views = write_online_report(done, compared)
        numbers |= {members[view.name]: {key: view.results[key] for key in MEASURES} for view in views}
        if group in PICTURES:
            shutil.copy(compared / PICTURES[group], results_path(f"online_{group}").with_suffix(".png"))
    write(results_path("online_arena"), {"groups": GROUPS}, numbers)


if __name__ == "__main__":
    main()
