"""Write METHODS.md and docs/cli.md from the registry and the commands; `--check` fails where they are stale."""

import os
import re
import sys
from pathlib import Path

os.environ.update(COLUMNS="100", TERM="dumb", NO_COLOR="1")

import typer
from typer.testing import CliRunner

from everlearn.catalog import SECTIONS, limits, section, summary
from everlearn.cli import app
from everlearn.registry import find, names

ROOT = Path(__file__).parents[1]
TOLD = [name for name in SECTIONS if name != "Args"]


def methods() -> str:
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
        lines += [f"- Recipes: {recipes_of(name)}", ""]
    lines += [(ROOT / "docs" / "results.md").read_text(encoding="utf-8").rstrip(), ""]
    return "\n".join(lines)


def recipes_of(name: str) -> str:
    """Return links to the recipes whose strategies name the method."""
    found = []
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        listed = re.search(r"^strategies:(.*?)(?=^\w|\Z)", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        if listed and re.search(rf"\b{name}\b", listed.group(1)):
            found.append(f"[{path.stem}](recipes/{path.name})")
    return ", ".join(found) or "none yet"


def commands() -> str:
    """Return docs/cli.md: the help text of each command."""
    runner = CliRunner()
    group = typer.main.get_command(app)
    lines = ["# Commands", "", "Made by `make docs`. Exit codes: 0 done, 1 error, 2 the gate refused, 130 paused.", ""]
    for name in sorted(group.commands):
        text = runner.invoke(app, [name, "--help"], prog_name="everlearn").output
        body = "\n".join(line.rstrip() for line in text.strip().splitlines())
        lines += [f"## everlearn {name}", "", "```", body, "```", ""]
    return "\n".join(lines)


def main() -> int:
    """Write the files, or with `--check` compare them; return 1 where one differs."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path, content in ((ROOT / "METHODS.md", methods()), (ROOT / "docs" / "cli.md", commands())):
        if check and (not path.exists() or path.read_text(encoding="utf-8") != content):
            stale.append(path.name)
        elif not check:
            path.write_text(content, encoding="utf-8")
    if stale:
        print(f"not up to date: {', '.join(stale)}. Run: make docs", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
