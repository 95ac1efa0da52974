"""Recipes: YAML to dataclasses, strictly. A wrong key, type or value fails before any model loads."""

import copy
import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import yaml

from everlearn.errors import ConfigError, check_number, describe, nearest
from everlearn.evaluation.probes import check_abilities
from everlearn.models.load import ModelConfig
from everlearn.registry import find
from everlearn.strategy import Strategy, why_apart
from everlearn.streams.loading import TaskOptions

T = TypeVar("T")
MOST_VALUES = 100_000  # in a recipe
LED_BY = {"ppo": "reinforcement"}  # learner -> the kind of run that leads it
SCHEDULE_KEYS = ("order", "shuffle", "rounds", "split_rounds", "per_task", "per_task_eval")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is scored, and how.

    future: score the tasks to come as well (forward transfer needs it).
    batch_size: rows scored at once.
    answers: keep what was answered to each item, and what was asked, beside whether it was right.
    abilities: what of the base model's is watched: self, arena, or files (docs/abilities.md).
    """

    future: bool = False
    batch_size: int = 64
    answers: bool = True
    abilities: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_number("evaluation.batch_size", self.batch_size, low=1)
        check_abilities("evaluation.abilities", self.abilities)


@dataclass(frozen=True)
class CheckpointConfig:
    """When the state is saved in mid-task: every so many seconds, or optimizer steps. It always is between tasks."""

    every_s: float | None = 300.0
    every_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("every_s", "every_steps"):
            if getattr(self, name) is not None:
                check_number(f"checkpoint.{name}", getattr(self, name), above=0)


@dataclass(frozen=True)
class Recipe:
    """All that a run needs. `stream`, `learner` and each of `strategies` name a registered thing and give its options.

    stream: also takes the schedule: order, shuffle, rounds, split_rounds, per_task, per_task_eval. A stream with a
        field order of its own (a named one, whose orders are published) gets it instead.
    seeds: one run per seed; `seed` is the short form for one.
    processes: how many processes `torchrun` was asked to start. fsdp: whether each keeps but a part of the weights, of
        their gradients and of what the optimizer remembers, where there are several.
    track: tensorboard, wandb, mlflow.
    """

    stream: dict[str, Any]
    model: ModelConfig = field(default_factory=ModelConfig)
    learner: dict[str, Any] = field(default_factory=lambda: {"name": "sft"})
    strategies: list[str | dict[str, Any]] = field(default_factory=list)
    seed: int | None = None
    seeds: list[int] = field(default_factory=list)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    device: str = "auto"
    processes: int = 1
    fsdp: bool = False
    track: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_seeds(self.seed, self.seeds)
        self.build_stream()
        self.build_learner()
        self.build_strategies()

    def all_seeds(self) -> list[int]:
        """Return the seeds to run."""
        return self.seeds or [self.seed or 0]

    def build_stream(self) -> Any:
        """Return the stream's builder, its options checked; nothing is read yet."""
        schedule = self.schedule_options()
        options = {key: value for key, value in self.stream.items() if key not in schedule}
        stream = build("stream", options, "stream", also=SCHEDULE_KEYS)
        if isinstance(stream, TaskOptions):
            stream = dataclasses.replace(stream, wants_validation=self.build_learner().uses_validation)
        return stream

    def schedule_options(self) -> dict[str, Any]:
        """Return the stream's keys that say in which order and how much is learned."""
        own = _names(_registered("stream", self.stream, "stream"))
        return {key: value for key, value in self.stream.items() if key in SCHEDULE_KEYS and key not in own}

    def build_learner(self) -> Any:
        """Return the learner."""
        return build_learner(self.learner)

    def build_strategies(self) -> list[Strategy]:
        """Return new strategies in the order of the recipe."""
        return build_strategies(self.strategies)


def check_seeds(seed: int | None, seeds: Sequence[int]) -> None:
    """Raise ConfigError where both are given, or seeds repeat."""
    if seed is not None and seeds:
        raise ConfigError(describe("seeds", "stands beside seed", seeds, "Write one of the two"))
    if len(set(seeds)) != len(seeds):
        raise ConfigError(describe("seeds", "repeat", seeds, "Give each seed once"))


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file (or mapping), with `a.b=value` overrides; values are read as YAML.

    Raises:
        ConfigError: if the file can't be read, or anything in it is unknown, of the wrong type or out of range.
    """
    return read_config(Recipe, source, overrides, "supervised")


def read_config(cls: type[T], source: str | Path | Mapping[str, Any], overrides: Sequence[str], kind: str = "") -> T:
    """Return the dataclass `cls` as a YAML file (or mapping) and its overrides give it.

    Args:
        kind: of run, which the content may name.
    """
    content = read_content(source, overrides)
    named = content.pop("kind", None) if kind else None
    if named not in (None, kind):
        raise ConfigError(describe("kind", f"is not {kind}", named, "everlearn run takes recipes of every kind"))
    return from_mapping(cls, content, "")


def read_content(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the mapping in a YAML file, or a copy of the one that is given, with `a.b=value` overrides."""
    content = copy.deepcopy(dict(source)) if isinstance(source, Mapping) else read_yaml(Path(source))
    for override in overrides:
        apply_override(content, override)
    return content


class _Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as YAML 1.2 does; PyYAML alone wants 1.0e-4 and takes this for text."""


class _Dumper(yaml.SafeDumper):
    """Writes a text that looks like such a number in quotes."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def write_yaml(content: Mapping[str, Any]) -> str:
    """Return a mapping as YAML text, which `read_yaml` reads back."""
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(describe(str(path), f"can't be read ({error})", path.name, "Name a YAML file")) from error
    try:
        content = _parse(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(describe(str(path), f"is no YAML ({reason})", path.name, "Correct that line")) from error
    if not isinstance(content, dict):
        raise ConfigError(describe(str(path), "is no mapping", content, "Write keys such as stream: and model:"))
    return content


def _parse(text: str) -> Any:
    """Return what YAML text says.

    Raises:
        yaml.YAMLError: also where PyYAML raises other errors (a date that isn't one, a number too long, too deep a
            nesting), where aliases make a value part of itself, and where they make it larger than any recipe.
    """
    try:
        value = yaml.load(text, _Loader)
        n_values = _n_values(value, (), {})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error
    if n_values > MOST_VALUES:
        raise yaml.YAMLError(f"with its aliases it has more than {MOST_VALUES} values")
    return value


def _n_values(value: Any, above: tuple[int, ...], known: dict[int, int]) -> int:
    """Return how many values there are, those of aliases counted each time."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) in above:
        raise yaml.YAMLError("an alias names what it is part of")
    if id(value) not in known:
        below = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_n_values(one, (*above, id(value)), known) for one in below)
    return known[id(value)]


def build(kind: str, options: Mapping[str, Any], where: str, also: Sequence[str] = ()) -> Any:
    """Return the registered thing that `options["name"]` names, made of the other options."""
    cls = _registered(kind, options, where)
    return from_mapping(cls, {key: value for key, value in options.items() if key != "name"}, where, also)


def _registered(kind: str, options: Any, where: str) -> type:
    """Return the class that `options["name"]` names."""
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        raise ConfigError(describe(where, "has no name", options, "Write name: and the name of one that is registered"))
    return find(kind, options["name"], f"{where}.name")


def build_learner(options: Mapping[str, Any]) -> Any:
    """Return the learner that options make, one of right answers: sft where they name none.

    Raises:
        ConfigError: if it is one that only a kind of run of its own leads.
    """
    kind = LED_BY.get(options.get("name", "sft"))
    if kind is not None:
        what, way_out = "learns in a kind of run of its own", f"Write a recipe with kind: {kind}"
        raise ConfigError(describe("learner.name", what, options["name"], way_out))
    return build("learner", {"name": "sft", **options}, "learner")


def listed(strategies: Any) -> list[Any]:
    """Return strategies as a list; one (its name, its mapping, the strategy itself) may stand alone."""
    return [strategies] if isinstance(strategies, str | Mapping | Strategy) else list(strategies)


def build_strategies(
    entries: Sequence[str | Mapping[str, Any] | Strategy], where: str = "strategies"
) -> list[Strategy]:
    """Return strategies from names, mappings with a name, or strategies themselves; those in conflict are refused."""
    strategies = []
    for i, entry in enumerate(entries):
        if isinstance(entry, Strategy):
            strategies.append(entry)
        else:
            options = {"name": entry} if isinstance(entry, str) else entry
            strategies.append(build("strategy", options, f"{where}[{i}]"))
        if not isinstance(strategies[-1], Strategy):
            what, way_out = "is no strategy", "Derive its class from everlearn.strategy.Strategy"
            raise ConfigError(describe(f"{where}[{i}]", what, type(strategies[-1]).__name__, way_out))
    names = [strategy.name for strategy in strategies]
    for first, second in combinations(strategies, 2):
        if first.name == second.name:
            raise ConfigError(describe(where, "a strategy stands twice", first.name, "List each once"))
        reason = why_apart(type(first), type(second))
        if reason is not None:
            way_out = f"{reason}; leave one of the two out"
            raise ConfigError(describe(where, f"{first.name} can't stand beside {second.name}", names, way_out))
    return strategies


def from_mapping(cls: type, content: Any, where: str, also: Sequence[str] = ()) -> Any:
    """Return the dataclass `cls` made of a mapping: unknown keys and wrong types are refused with their YAML path."""
    label = where or "recipe"
    if not isinstance(content, Mapping):
        raise ConfigError(describe(label, "must be a mapping", content, f"Keys: {', '.join(_names(cls))}"))
    names = _names(cls)
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in content.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in names:
            known = [*names, *also]
            raise ConfigError(describe(path, "is unknown", key, f"{nearest(str(key), known)}Keys: {', '.join(known)}"))
        values[key] = _convert(hints[key], value, path)
    missing = [f.name for f in dataclasses.fields(cls) if f.init and f.name not in values and not _has_default(f)]
    if missing:
        raise ConfigError(describe(label, f"lacks {missing[0]!r}", sorted(content), f"Add {missing[0]}:"))
    return cls(**values)


def _names(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls) if f.init]


def _has_default(f: dataclasses.Field) -> bool:
    return f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING


def _convert(hint: Any, value: Any, path: str) -> Any:
    """Return `value` as the annotated type, or raise. Whole numbers pass as floats, lists as tuples; no more."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_to_one_of(hint, value, path)
    if not _fits(hint, value):
        raise _wrong_type(hint, value, path)
    if dataclasses.is_dataclass(hint):
        return from_mapping(hint, value, path)
    if origin is list or (origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis):
        return origin(_convert(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is tuple:
        if len(value) != len(arguments):
            raise _wrong_type(hint, value, path)
        return tuple(
            _convert(a, item, f"{path}[{i}]") for i, (a, item) in enumerate(zip(arguments, value, strict=True))
        )
    if origin in (dict, Mapping):
        return {_convert(arguments[0], k, path): _convert(arguments[1], v, f"{path}.{k}") for k, v in value.items()}
    return _as_float(value, path) if hint is float else value


def _as_float(value: int | float, path: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigError(describe(path, "is out of range", value, "Give a smaller number")) from error


def _convert_to_one_of(hint: Any, value: Any, path: str) -> Any:
    options = typing.get_args(hint)
    if value is None and type(None) in options:
        return None
    fitting = [option for option in options if option is not type(None) and _fits(option, value)]
    if not fitting:
        raise _wrong_type(hint, value, path)
    return _convert(fitting[0], value, path)


def _fits(hint: Any, value: Any) -> bool:
    """Tell whether a YAML value has the outer shape of the annotated type."""
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return any(_fits(a, value) for a in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if hint is Any:
        return True
    if origin is bool or origin is str or origin is type(None):
        return isinstance(value, origin)
    if origin in (int, float):
        return isinstance(value, int | origin) and not isinstance(value, bool)
    if origin in (list, tuple) or origin is Sequence:
        return isinstance(value, list | tuple)
    return isinstance(value, Mapping)


def _wrong_type(hint: Any, value: Any, path: str) -> ConfigError:
    way_out = f"Give {_in_words(hint)}"
    if isinstance(value, str) and _looks_like_number(value):
        way_out += ", without quotes"
    return ConfigError(describe(path, "has the wrong type", value, way_out))


def _in_words(hint: Any) -> str:
    """Return an annotated type as it is written in a recipe: float or auto; int or null."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(map(_in_words, typing.get_args(hint)))
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    name = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return name.replace("typing.", "").replace("NoneType", "null").replace("None", "null")


def _looks_like_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def apply_override(content: dict[str, Any], override: str) -> None:
    """Apply one `a.b=value`; numbers in a path index lists."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(describe("--set", "is no assignment", override, "Write --set learner.epochs=5"))
    try:
        value = _parse(text)
    except yaml.YAMLError as error:
        raise ConfigError(describe(f"--set {path}", "is no YAML value", text, "Quote it")) from error
    *parents, last = path.split(".")
    place: Any = content
    for key in parents:
        place = _step_into(place, key, path)
    if isinstance(place, list):
        place[_index(place, last, path)] = value
    else:
        place[last] = value


def _step_into(place: Any, key: str, path: str) -> Any:
    if isinstance(place, list):
        below = place[_index(place, key, path)]
    else:
        if place.get(key) is None:
            place[key] = {}
        below = place[key]
    if not isinstance(below, dict | list):
        raise ConfigError(describe(f"--set {path}", f"{key} is no mapping", below, "Name a key that holds others"))
    return below


def _index(place: list[Any], key: str, path: str) -> int:
    if not key.isdigit() or int(key) >= len(place):
        way_out = f"Give a number from 0 to {len(place) - 1}"
        raise ConfigError(describe(f"--set {path}", "is no place in the list", key, way_out))
    return int(key)
