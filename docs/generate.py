"""Write METHODS.md, docs/cli.md and recipes/methods/ from the registry, the commands and benchmarks/methods.yaml.

`--check` fails where they are stale.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.update(COLUMNS="100", TERM="dumb", NO_COLOR="1")

import typer
import yaml
from typer.testing import CliRunner

from everlearn.catalog import SECTIONS, limits, section, summary
from everlearn.cli import app
from everlearn.config import apply_override, read_yaml
from everlearn.registry import find, names
from everlearn.report.text import estimate, size

ROOT = Path(__file__).parents[1]
SUITES = yaml.safe_load((ROOT / "benchmarks" / "methods.yaml").read_text(encoding="utf-8"))
TOLD = [name for name in SECTIONS if name != "Args"]
SHOWN_ON = ("arena", "cl15", "split_mnist_class")  # the suite that gives a method its recipe: the first that has it
MEASURES = ("average_accuracy", "backward_transfer", "learning_accuracy")
# suites whose methods stand in a table of all measures
DETAILED = (
    "smollm2_arena", "smollm2_cl15", "arena", "cl15", "domains_sentiment", "domains_entities",
    "domains_news_social_academic", "permuted_mnist",
)  # fmt: skip


def methods(numbers: dict[str, dict[str, Any]]) -> str:
    """Return METHODS.md."""
    lines = [
        "# Methods",
        "",
        "Made by `make docs` from the registry. How each method is checked: `tests/contract/` runs over all of them.",
        "",
    ]
    for name in names("strategy"):
        cls = find("strategy", name)
        lines += [f"## `{name}`", "", summary(cls), ""]
        lines += [f"- {title}: {section(cls, title)}" for title in TOLD if section(cls, title)]
        lines += [f"- {limit[0].upper()}{limit[1:]}: {reason}." for limit, reason in limits(cls)]
        lines += [f"- Recipes: {recipes_of(name)}", *results_of(name, numbers), ""]
    lines += side_by_side(numbers)
    for suite in DETAILED:
        lines += in_detail(suite, numbers.get(suite, {}))
    lines += [(ROOT / "docs" / "results.md").read_text(encoding="utf-8").rstrip(), ""]
    return "\n".join(lines)


def recipes_of(name: str) -> str:
    """Return links to the recipes whose strategies name the method."""
    found = []
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        listed = re.search(r"^strategies:(.*?)(?=^\w|\Z)", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        if listed and re.search(rf"\b{name}\b", listed.group(1)):
            found.append(f"[{path.stem}]({path.relative_to(ROOT)})")
    return ", ".join(found) or "none yet"


def method_recipes(numbers: dict[str, dict[str, Any]]) -> dict[Path, str]:
    """Return for each method the recipe that runs it alone, by path: that of a suite with the method put in."""
    found = {}
    for name in names("strategy"):
        places = [
            (suite, label)
            for suite in SHOWN_ON
            for label, strategies in SUITES[suite]["methods"].items()
            if names_in(strategies) == [name]
        ]
        if not places:
            continue
        suite, label = places[0]
        source = Path(SUITES[suite]["recipe"])
        recipe = read_yaml(ROOT / source)
        for override in SUITES[suite].get("set", ()):
            apply_override(recipe, override)
        recipe["strategies"] = SUITES[suite]["methods"][label]
        if not recipe.get("seeds"):
            recipe.pop("seed", None)
            recipe["seeds"] = list(range(5))
        result = numbers.get(suite, {}).get(label)
        expected = f"{outcome(result)}, {result['n_seeds']} seeds" if result else "not measured"
        path = Path("recipes") / "methods" / f"{name}.yaml"
        head = (
            f"# {name} on {SUITES[suite]['title']}. Made by `make docs` from {source} and benchmarks/methods.yaml.",
            f"# everlearn run {path} --out runs/{name}",
            f"# expected: {expected}. One CPU core, minutes",
        )
        found[ROOT / path] = "\n".join(
            [*head, yaml.safe_dump(recipe, default_flow_style=None, sort_keys=False, width=120)]
        )
    return found


def outcome(found: dict[str, Any]) -> str:
    """Return in words what a method came to."""
    score, change = estimate(found["average_accuracy"]), estimate(found["backward_transfer"], signed=True)
    return f"average accuracy {' '.join(score)}, backward transfer {change[0]}"


def names_in(strategies: list[Any]) -> list[str]:
    """Return the names of the methods in a list of strategies; of an empty one `none`, plain training."""
    return [entry if isinstance(entry, str) else entry["name"] for entry in strategies] or ["none"]


def results_of(name: str, suites: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each stream of benchmarks/methods.yaml on which the method alone was measured."""
    lines = []
    for suite, numbers in suites.items():
        for label, found in numbers.items():
            if names_in(found["strategies"]) != [name]:
                continue
            published = SUITES[suite].get("published", {}).get(label)
            lines.append(
                f"- On {SUITES[suite]['title']}: {outcome(found)}"
                f" ({found['n_seeds']} seeds, `{settings(found['strategies'])}`)"
                + (f"; published: {published}" if published else "")
            )
    return lines


def side_by_side(numbers: dict[str, dict[str, Any]]) -> list[str]:
    """Return the table of all methods on all the streams that were measured."""
    rows = dict.fromkeys(name for found in numbers.values() for name in found)
    titles = [f"{SUITES[suite]['title']} ({seeds(found)} seeds)" for suite, found in numbers.items()]
    lines = [
        "## Side by side",
        "",
        "Average accuracy at the end, 95% interval over the seeds; – where a method doesn't suit the stream or",
        "wasn't measured on it. Settings stand with each method, streams in `benchmarks/methods.yaml`.",
        "",
        f"| | {' | '.join(titles)} |",
        f"| --- |{' --- |' * len(numbers)}",
    ]
    for name in rows:
        cells = [" ".join(estimate(found.get(name, {}).get("average_accuracy"))).rstrip() for found in numbers.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def in_detail(suite: str, numbers: dict[str, Any]) -> list[str]:
    """Return the table of a stream's methods, the best first, and its picture where there is one."""
    if not numbers:
        return []
    title, recipe = SUITES[suite]["title"], SUITES[suite]["recipe"]
    lines = [
        f"## {title[0].upper()}{title[1:]}",
        "",
        f"{seeds(numbers)} seeds, 95% intervals over seeds and items; recipe [{Path(recipe).stem}]({recipe}).",
        "Learning accuracy: of each task right after it was learned. Kept: bytes beside the model at the end. Minutes:",
        "of training, for a seed.",
        "",
        "| | average accuracy | backward transfer | learning accuracy | kept | minutes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    best_first = sorted(numbers.items(), key=lambda entry: -entry[1]["average_accuracy"]["mean"])
    for name, found in best_first:
        cells = [" ".join(estimate(found[key], signed=key == "backward_transfer")).rstrip() for key in MEASURES]
        kept = size(found["bytes_kept"]) if found["bytes_kept"] >= 1024 else "nothing"
        lines.append(f"| {name} | {' | '.join(cells)} | {kept} | {found['train_s'] / 60:.1f} |")
    picture = Path("benchmarks") / "results" / f"methods_{suite}.png"
    if (ROOT / picture).exists():
        lines += ["", f"![Retention against plasticity; larger dots keep more bytes]({picture})"]
    return [*lines, ""]


def seeds(found: dict[str, Any]) -> str:
    """Return how many seeds the methods of a stream ran."""
    return " or ".join(str(n) for n in sorted({one["n_seeds"] for one in found.values()}))


def measured() -> dict[str, dict[str, Any]]:
    """Return by stream what benchmarks/methods.py measured of each method."""
    paths = {suite: ROOT / "benchmarks" / "results" / f"methods_{suite}.json" for suite in SUITES}
    return {
        suite: json.loads(path.read_text(encoding="utf-8"))["numbers"] for suite, path in paths.items() if path.exists()
    }


def settings(strategies: list[Any]) -> str:
    """Return strategies as they are written in a recipe, on one line."""
    return yaml.safe_dump(strategies, default_flow_style=True, sort_keys=False, width=1000).strip()


def commands() -> str:
    """Return docs/cli.md: the help text of each command."""
    runner = CliRunner()
    group = typer.main.get_command(app)
    lines = ["# Commands", "", "Made by `make docs`. Exit codes: 0 done, 1 error, 2 the gate refused, 130 paused.", ""]
    for name in names_of(group):
        text = runner.invoke(app, [*name.split(), "--help"], prog_name="everlearn").output
        body = "\n".join(line.rstrip() for line in text.strip().splitlines())
        lines += [f"## everlearn {name}", "", "```", body, "```", ""]
    return "\n".join(lines)


def names_of(group: Any) -> list[str]:
    """Return the names of a group's commands, `group command` for those of a group within it."""
    names = []
    for name, command in sorted(group.commands.items()):
        inner = names_of(command) if isinstance(command, typer.core.TyperGroup) else []
        names += [f"{name} {each}" for each in inner] or [name]
    return names


def main() -> int:
    """Write the files, or with `--check` compare them; return 1 where one differs."""
    check = "--check" in sys.argv[1:]
    stale = []
    numbers = measured()
    for path, content in [
        *method_recipes(numbers).items(),
        (ROOT / "METHODS.md", methods(numbers)),
        (ROOT / "docs" / "cli.md", commands()),
    ]:
        if check and (not path.exists() or path.read_text(encoding="utf-8") != content):
            stale.append(path.name)
        elif not check:
            path.write_text(content, encoding="utf-8")
    if stale:
        print(f"not up to date: {', '.join(stale)}. Run: make docs", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
