"""What a grid says, and the cells that it makes: recipes of any kind of run, one seed each."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from everlearn.bench.search import Search
from everlearn.config import apply_override, from_mapping, read_yaml
from everlearn.errors import ConfigError, EverlearnError, check_choice, check_number, describe
from everlearn.kind import RunKind
from everlearn.runs import read_recipe

AXES = ("recipe", "stream", "model", "order", "size", "method")  # and those of `variants`
MOST_CELLS = 10_000


@dataclass(frozen=True)
class Grid:
    """Every combination of what is listed is a cell, once for each seed. What isn't listed is as in the recipe.

    recipe: a recipe of any kind of run, its file (beside the grid, or from here) or its mapping. recipes: several, by
        name, in its place.
    streams: by name what takes the place of `stream:` (of `source:` where the recipe has that), or names of streams.
    models: by name what takes the place of `model:`, or names of models.
    methods: by name a list of strategies, or such texts as none, ewc, replay+ewc.
    orders: by name a list of tasks. sizes: training rows of a task, at most (`stream.per_task`; in a recipe with
        `source:`, episodes).
    variants: any other axis: its name -> by name a list of settings such as `learner.epochs=5`.
    seeds: of every cell. seeds_for: by method. set: settings of all cells. set_for: by method.
    search: hyperparameters to choose first, see `Search`.
    compare: the axes whose values are compared with each other; the others tell apart where that is done. By default
        method and the variants.
    threads: of a cell; null: as many as there are cores for each of the jobs. Numbers may depend on it in the last
        digits, so that a folder keeps what it was begun with.
    keep_weights: keep weights, memories and checkpoints of cells that are done, not the results alone.
    """

    recipe: str | dict[str, Any] | None = None
    recipes: dict[str, str | dict[str, Any]] = field(default_factory=dict)
    streams: dict[str, dict[str, Any]] | list[str] | None = None
    models: dict[str, dict[str, Any]] | list[str] | None = None
    methods: dict[str, list[str | dict[str, Any]]] | list[str] | None = None
    orders: dict[str, list[str]] | None = None
    sizes: list[int] | None = None
    variants: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    seeds_for: dict[str, list[int]] = field(default_factory=dict)
    set: list[str] = field(default_factory=list)
    set_for: dict[str, list[str]] = field(default_factory=dict)
    search: Search | None = None
    compare: list[str] | None = None
    threads: int | None = None
    keep_weights: bool = False

    def __post_init__(self) -> None:
        if (self.recipe is None) == (not self.recipes):
            way_out = "Write one of the two: recipe: FILE"
            raise ConfigError(describe("recipe", "and recipes: both or neither is given", self.recipe, way_out))
        for name in ("recipes", "streams", "models", "methods", "orders", "sizes", "variants", "seeds"):
            _check_listed(name, getattr(self, name), empty=name in ("recipes", "variants"))
        for axis, labels in self.variants.items():
            if axis in (*AXES, "seed"):
                way_out = f"Choose a name other than {', '.join(AXES)}, seed"
                raise ConfigError(describe(f"variants.{axis}", "is an axis of its own", axis, way_out))
            _check_listed(f"variants.{axis}", labels)
        self._check_methods()
        for axis in self.compare or ():
            check_choice("compare", axis, self.axes())
        for number in (*(self.sizes or ()), *([] if self.threads is None else [self.threads])):
            check_number("sizes, threads", number, low=1)

    def _check_methods(self) -> None:
        """Check what is given by method: that there are such methods."""
        known = self.axes().get("method", ())
        searched = self.search.methods if self.search else {}
        for name, by_method in (("seeds_for", self.seeds_for), ("set_for", self.set_for), ("search.methods", searched)):
            for method, values in by_method.items():
                check_choice(f"{name}.{method}", method, known)
                _check_listed(f"{name}.{method}", values)

    def axes(self) -> dict[str, dict[str, Any]]:
        """Return {axis: {label: value}} of what the grid lists."""
        listed = {
            "recipe": self.recipes or None,
            "stream": _named(self.streams),
            "model": _named(self.models),
            "order": self.orders,
            "size": None if self.sizes is None else {str(size): size for size in self.sizes},
            "method": self.methods if not isinstance(self.methods, list) else {m: _parts(m) for m in self.methods},
        }
        return {axis: dict(labels) for axis, labels in listed.items() if labels is not None} | self.variants

    def compared(self) -> list[str]:
        """Return the axes along which cells are compared."""
        return self.compare or [axis for axis in self.axes() if axis == "method" or axis in self.variants]


@dataclass(frozen=True)
class Cell:
    """A run of the grid: the labels of its axes, its seed, and its recipe's content."""

    labels: Mapping[str, str]
    seed: int
    content: Mapping[str, Any]
    compared: Sequence[str]

    @property
    def group(self) -> str:
        """Where it is compared with others: stream, model, ... in words."""
        return ", ".join(label for axis, label in self.labels.items() if axis not in self.compared)

    @property
    def variant(self) -> str:
        """What it is compared as: its method, in most grids."""
        return ", ".join(label for axis, label in self.labels.items() if axis in self.compared) or "recipe"

    @property
    def name(self) -> str:
        """Its folder's, below that of the cells."""
        return f"{self.place}/seed-{self.seed}"

    @property
    def place(self) -> str:
        """The folder of all its seeds."""
        parts = [folder_name(label) for label in self.labels.values()] or ["recipe"]
        return "/".join(parts)


def read_grid(path: Path, settings: Sequence[str] = ()) -> tuple[Grid, list[Cell]]:
    """Return a grid's file and the cells that it makes, all recipes read strictly; seeds come last, one after another.

    Args:
        settings: further ones of all cells.

    Raises:
        ConfigError: if the file can't be read, a name stands twice, a key is unknown, a list empty, or a recipe wrong.
    """
    content = read_yaml(path)
    _check_names_once(path)
    grid = from_mapping(Grid, content, "")
    return grid, cells_of(grid, path.parent, settings)


def cells_of(grid: Grid, folder: Path, settings: Sequence[str] = ()) -> list[Cell]:
    """Return the cells of a grid: all methods with the first seed before any with the next.

    folder: that the recipes' files are looked for in, before the present one.
    """
    axes, compared = grid.axes(), grid.compared()
    n = len(grid.seeds)
    for labels in axes.values():
        n *= len(labels)
    if n > MOST_CELLS:
        way_out = f"List fewer: at most {MOST_CELLS} cells"
        raise ConfigError(describe("grid", "has too many cells", n, way_out))
    bases = {label: _base(recipe, folder) for label, recipe in (axes.get("recipe") or {"": grid.recipe}).items()}
    combinations = [dict(zip(axes, labels, strict=True)) for labels in product(*axes.values())]
    own_seeds = [grid.seeds_for.get(labels.get("method", ""), grid.seeds) for labels in combinations]
    seeds = dict.fromkeys(seed for some in own_seeds for seed in some)
    cells = []
    for seed in seeds:
        for labels, own in zip(combinations, own_seeds, strict=True):
            if seed in own:
                base = bases[labels.get("recipe", "")]
                cells.append(Cell(labels, seed, _content(grid, axes, base, labels, settings, seed), compared))
    _check_cells(cells)
    return cells


def with_settings(content: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's content with values put in, {"learner.epochs": 5}."""
    changed = deepcopy(dict(content))
    for path, value in settings.items():
        apply_override(changed, f"{path}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...')}")
    return changed


def folder_name(label: str) -> str:
    """Return a label as a folder's name."""
    return re.sub(r"[^\w.+-]", "_", label).lstrip(".") or "_"


def _content(
    grid: Grid,
    axes: Mapping[str, Mapping[str, Any]],
    base: Mapping[str, Any],
    labels: Mapping[str, str],
    settings: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    content = deepcopy(dict(base))
    chosen = {axis: deepcopy(axes[axis][label]) for axis, label in labels.items()}
    online = "source" in content
    where = "source" if online else "stream"
    if "stream" in chosen:
        content[where] = chosen["stream"]
    for key, axis in (("model", "model"), ("strategies", "method")):
        if axis in chosen:
            content[key] = chosen[axis]
    if "order" in chosen:
        content[where] = {**content.get(where, {}), "order": chosen["order"]}
    if "size" in chosen and online:
        content["episodes"] = chosen["size"]
    elif "size" in chosen:
        content[where] = {**content.get(where, {}), "per_task": chosen["size"]}
    varied = [setting for axis in grid.variants for setting in chosen[axis]]
    for setting in (*grid.set, *settings, *varied, *grid.set_for.get(labels.get("method", ""), ())):
        apply_override(content, setting)
    content.pop("seed", None)
    return {**content, "seeds": [seed]}


def _check_cells(cells: Sequence[Cell]) -> None:
    """Read each combination's recipe once, strictly, and see that no two share a folder."""
    places: dict[str, Mapping[str, str]] = {}
    for cell in cells:
        place = cell.place.lower()  # some file systems don't tell capitals
        if places.setdefault(place, cell.labels) != cell.labels:
            what = f"two cells would share the folder {cell.place}"
            raise ConfigError(describe("grid", what, dict(cell.labels), "Give names that differ in letters or digits"))
    for cell in {cell.place: cell for cell in cells}.values():
        where = ", ".join(f"{axis} {label}" for axis, label in cell.labels.items()) or "recipe"
        try:
            kind, _ = read_recipe(cell.content)
        except EverlearnError as error:
            raise ConfigError(f"cell {where}: {error}") from error
        if not issubclass(kind, RunKind):
            way_out = "Write a recipe of runs: supervised, reinforcement, online, meta"
            raise ConfigError(describe(f"cell {where}", "is of a kind without seeds and results", kind.name, way_out))


def _check_listed(name: str, values: Any, empty: bool = False) -> None:
    if values is None or (empty and not values):
        return
    if not values:
        raise ConfigError(describe(name, "is empty", values, "List one, or leave the key out"))
    if isinstance(values, list) and len({str(value) for value in values}) < len(values):
        raise ConfigError(describe(name, "repeats", values, "List each once"))


def _named(values: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    return dict(values) if isinstance(values, Mapping) else {name: {"name": name} for name in values}


def _parts(method: str) -> list[str]:
    return [part for part in (part.strip() for part in method.split("+")) if part != "none"]


def _base(recipe: str | Mapping[str, Any], folder: Path) -> dict[str, Any]:
    if isinstance(recipe, Mapping):
        return dict(recipe)
    beside = folder / recipe
    return read_yaml(beside if beside.exists() else Path(recipe))


def _check_names_once(path: Path) -> None:
    """Raise ConfigError where a mapping of the file has a key twice, of which YAML would take the last in silence."""
    nodes = [yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)]
    seen: set[int] = set()
    while nodes:
        node = nodes.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
            for place, key in enumerate(keys):
                if key in keys[:place]:
                    line = node.value[place][0].start_mark.line + 1
                    raise ConfigError(describe(f"{path}, line {line}", "a name stands twice", key, "Rename one"))
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
