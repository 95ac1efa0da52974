"""What is tried on what: the data that `--stream` names, and the methods that suit the model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlearn.config import Recipe, apply_override, build_strategies, read_yaml
from everlearn.errors import ConfigError, describe, nearest
from everlearn.models.load import network_kind
from everlearn.registry import names
from everlearn.report.advice import JOINT, PLAIN
from everlearn.streams.reading import SUFFIXES
from everlearn.streams.schedule import Schedule

METHOD_COST = 2.0  # training time of a method, planned as so many times plain training's
BASE = ("none", "replay", "ewc", "replay+ewc", "lwf")
MORE = {
    "causal": ("olora",),
    "classify": ("derpp", "seq_star"),
    "tag": ("derpp", "seq_star"),
    "tensor": ("derpp", "si"),
}  # tried besides, where the model's traits allow it


@dataclass(frozen=True)
class Candidate:
    """Methods tried together, under one name; their entries are those of a recipe."""

    name: str
    strategies: tuple[str | dict[str, Any], ...]

    @property
    def folder(self) -> str:
        """The name as a folder's."""
        return re.sub(r"[^\w.+-]", "_", self.name)

    @property
    def cost(self) -> float:
        """What its training is planned to cost, in multiples of plain training's."""
        return 1.0 if self.name in (PLAIN, JOINT) else METHOD_COST


def content_of(
    streams: Sequence[str], model: str | None = None, settings: Sequence[str] = (), seed: int | None = None
) -> dict[str, Any]:
    """Return the content of a recipe for `--stream`: a recipe's own, a registered stream's, or that of data files."""
    first = streams[0]
    if len(streams) == 1 and Path(first).suffix.lower() in (".yaml", ".yml"):
        content = read_yaml(Path(first))
    elif len(streams) == 1 and (first in names("stream") or (":" in first and not Path(first).exists())):
        content = {"stream": {"name": first}}
    else:
        for path in streams:
            if not Path(path).expanduser().exists():
                known = names("stream")
                way_out = f"{nearest(path, known)}Name a recipe (.yaml), data files or folders, or a stream"
                what = f"is no file ({', '.join(SUFFIXES)}), folder or stream ({', '.join(known)})"
                raise ConfigError(describe("--stream", what, path, way_out))
        content = {"stream": {"name": "files", "paths": list(streams)}}
    if model is not None:
        content["model"] = {**(content.get("model") or {}), "name": model}
    if seed is not None:
        content.pop("seeds", None)
        content["seed"] = seed
    for setting in settings:
        apply_override(content, setting)
    return completed(content)


def completed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's content with the model and the learner that it leaves open."""
    stream, learner = content.get("stream"), content.get("learner", {})
    images = isinstance(stream, Mapping) and stream.get("name") in ("digits", "mnist")
    content = {"model": {"name": "mlp" if images else "pocket"}, **content}
    content["learner"] = {"name": "sft", **learner} if isinstance(learner, Mapping) else learner
    return {key: content[key] for key in ("stream", "model", "learner") if key in content} | content


def choose_candidates(
    named: Sequence[str] | None, own: Sequence[str | Mapping[str, Any]], traits: tuple[str, ...]
) -> list[Candidate]:
    """Return what to try, plain training first, joint training (the reference) last.

    Args:
        named: `replay`, `replay+ewc`, ...; None: what suits a model with these traits, and the recipe's own methods.
        own: the recipe's strategies; a method takes its options from there.
        traits: as in `Model.traits`.
    Raises:
        ConfigError: if a named one is unknown or doesn't suit the model, or none is named.
    """
    options = {entry["name"]: dict(entry) for entry in own if isinstance(entry, Mapping)}
    mine = "+".join(entry if isinstance(entry, str) else entry["name"] for entry in own)
    usual = (*BASE, *MORE[traits[0]])
    wanted = [*usual, mine or PLAIN] if named is None else named
    found: dict[frozenset[str], Candidate] = {}
    for text in [PLAIN, *wanted, JOINT]:
        parts = [part.strip() for part in text.split("+")]
        entries = tuple(options.get(part, part) for part in parts if part != PLAIN)
        try:
            for strategy in build_strategies(entries, f"--strategies {text}"):
                strategy.check_model(traits)
        except ConfigError:
            if named is None and text in usual:
                continue
            raise
        found.setdefault(frozenset(parts), Candidate("+".join(parts), entries))
    joint = found.pop(frozenset((JOINT,)))
    if len(found) < 2:
        way_out = "Name a method beside none and joint, such as replay; or leave --strategies out"
        raise ConfigError(describe("--strategies", "there is nothing to compare with plain training", named, way_out))
    return [*found.values(), joint]


def traits_of(recipe: Recipe, schedule: Schedule) -> tuple[str, ...]:
    """Return the `Model.traits` of the recipe's model, which is not loaded for that."""
    kind = network_kind(list(schedule.stream), recipe.model.head)
    adapter = recipe.model.adapter.name if recipe.model.adapter else ("full" if kind == "tensor" else "lora")
    return (kind, adapter) if kind == "causal" else (kind, adapter, f"{recipe.model.head}_head")
