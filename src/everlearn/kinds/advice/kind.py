"""Advice as what a recipe can ask for, and what one goes on with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from everlearn.errors import ConfigError, describe
from everlearn.kind import Folder
from everlearn.kinds.advice.advice import advise, go_on, is_advice
from everlearn.kinds.advice.sizing import parse_budget
from everlearn.listener import Listener
from everlearn.registry import register
from everlearn.report.advice import Advice
from everlearn.runs import LOG, Supervised


@dataclass(frozen=True)
class AdviceRecipe:
    """What is to be tried on what.

    recipe: of the training that is to come; the methods in it are tried as well. budget: 90s, 10m, 1h. methods: what to
    try, such as [replay, replay+ewc]; null: what suits the model.
    """

    recipe: dict[str, Any]
    budget: str = "10m"
    methods: list[str] | None = None

    def __post_init__(self) -> None:
        parse_budget(self.budget)


@register("run", "advice")
class AdviceFolder(Folder):
    """Try a few methods on the user's own data for a few minutes, and write a recipe with the one to take."""

    recipe_type = AdviceRecipe

    @classmethod
    def holds(cls, folder: Path) -> bool:
        return is_advice(folder)

    @classmethod
    def run(cls, recipe: AdviceRecipe, out: Path, listener: Listener) -> Advice:
        budget_s = parse_budget(recipe.budget)
        return advise(recipe.recipe, out, budget_s=budget_s, strategies=recipe.methods, listener=listener)

    @classmethod
    def resume(cls, folder: Path, listener: Listener) -> Advice:
        return go_on(folder, listener)

    @classmethod
    def draw(cls, folders: Mapping[str, Path], out: Path) -> list[RenderableType]:
        """Draw all trials side by side."""
        found = {
            f"{name}: {trial.name}": trial
            for name, folder in folders.items()
            for trial in sorted((folder / "trials").glob("*"))
            if (trial / LOG).exists()
        }
        if not found:
            got = list(map(str, folders.values()))
            raise ConfigError(describe("compare", "no trial was begun yet", got, "Go on with: everlearn resume"))
        return Supervised.draw(found, out)

    @classmethod
    def finish(cls, folder: Path, came_of: Advice, listener: Listener, console: Console) -> int:
        from rich import box

        from everlearn.report.advice import advice_grid, caveats, sentences
        from everlearn.report.table import to_rich

        table = to_rich(advice_grid(came_of, intervals=False))
        table.box, table.collapse_padding = box.SIMPLE_HEAD, True  # seven columns in 80 characters
        console.print(table)
        for line in (*sentences(came_of), *caveats(came_of)):
            console.print(line, markup=False, highlight=False)
        console.print(
            f"\nRecipe: {folder / 'recipe.yaml'}\nReport: {folder / 'report.html'}", highlight=False, markup=False
        )
        return 0
