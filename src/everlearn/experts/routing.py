"""Asking a library which of its experts would do for a task, with the router that it keeps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from everlearn.config import from_mapping
from everlearn.errors import ConfigError, describe
from everlearn.experts.library import Library
from everlearn.experts.profiles import Prototypes
from everlearn.experts.router import Decision, Router, RouterConfig
from everlearn.experts.signals import SignalConfig, Signals
from everlearn.models.load import Model
from everlearn.types import Task


def router_of(library: Library, config: RouterConfig | None = None, seed: int = 0) -> Router:
    """Return the router that a library keeps, as it is after what it has learned; a new one where it keeps none.

    Args:
        config: in place of the one that it was kept with.

    Raises:
        ConfigError: if the library has no profiles. StateError: if what it keeps is damaged.
    """
    kept, blocks, cache = library.router(), _profiled_with(library)["blocks"], library.path / "index"
    if kept is None:
        return Router(config or RouterConfig(), blocks, seed, cache)
    config = config or from_mapping(RouterConfig, kept["config"], f"{library.path}: router")
    return Router.load(config, blocks, kept["state"], kept["seed"], cache)


def keep_router(library: Library, router: Router) -> None:
    """Let a library keep a router, so that `router_of` returns it."""
    library.keep_router({"config": vars(router.config), "seed": router.seed, "state": router.state()})


def signals_of(library: Library, model: Model, k_examples: int = SignalConfig.k_examples) -> Signals:
    """Return what measures a task as the library's profiles were measured; as by default where it has none.

    Raises:
        ModelError: if the model is of another base.
    """
    made: Mapping[str, Any] = library.profiled_with or {}
    names = ("grad_sketch_layers", "text_encoder", "text_inputs", "max_tokens", "seed")
    own = {name: made[name] for name in names if name in made}
    if made:
        own["sketch_size"] = made["blocks"]["gradient"]
    return Signals(model, SignalConfig(k_examples=k_examples, **own))


def known_of(library: Library, dimension: int) -> Prototypes:
    """Return a library's prototypes; where it has none, none of that dimension."""
    return library.prototypes() if library.dimension else Prototypes(torch.zeros(0, dimension), [], [])


def route(library: Library, model: Model, description: str, task: Task | None = None) -> Decision:
    """Return what the router would do with a task; nothing changes.

    Args:
        description: of the task, in words. task: its training rows; without, the description alone is compared.

    Raises:
        ConfigError: if the description is empty, or the library has no profiles.
    """
    router, signals = router_of(library), signals_of(library, model)
    uses = {expert.number: expert.uses for expert in library.experts}
    if task is not None:
        vector = signals.of(description, task, task.train)
    else:  # what it has learned is of other similarities
        router = Router(replace(router.config, similarity="text"), signals.blocks, router.seed)
        vector = signals.of_text(description)
    return router.decide(vector, known_of(library, signals.dimension), uses)


def _profiled_with(library: Library) -> dict[str, Any]:
    if library.profiled_with is None:
        way_out = (
            "everlearn experts add FOLDER ADAPTER --rows FILE gives an expert one; strategy experts does so itself"
        )
        raise ConfigError(describe(str(library.path), "no expert has a profile", len(library), way_out))
    return library.profiled_with
