"""Names to things: strategies, streams, learners, verifiers, ... One decorator registers, nothing else is edited."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, TypeVar

from everlearn.errors import ConfigError, describe, nearest

T = TypeVar("T")

# kind -> the package whose modules register things of that kind, imported when a name is first looked up
PACKAGES = {
    "strategy": "everlearn.strategies",
    "operation": "everlearn.strategies",  # changes of a model's structure, which the strategies bring
    "stream": "everlearn.streams",
    "learner": "everlearn.learners",
    "detector": "everlearn.learners",
    "verifier": "everlearn.streams",
    "reward": "everlearn.rl",
    "problem": "everlearn.streams.arena",
    "curriculum": "everlearn.streams.arena",
    "source": "everlearn.streams",  # of episodes, for learning online
    "run": "everlearn.kinds",  # what one goes on with: kinds of run, and a home
}
PUZZLE = ("draw", "content", "problem")  # what a kind of problem has
WANTED = {
    "verifier": "a function (completion, row) -> bool",
    "reward": "a function (prompt, response, row) -> float or dict",
    "operation": "a function",
    "problem": f"a class with {', '.join(PUZZLE)}",
    "run": "a class with learn and summarise, see everlearn.kind",
}
_entries: dict[str, dict[str, Any]] = {kind: {} for kind in PACKAGES}
_imported: set[str] = set()


def register(kind: str, name: str) -> Callable[[T], T]:
    """Register the decorated class or function as `name` among the things of `kind` (see `PACKAGES`).

    Raises:
        ConfigError: if the kind is unknown or another object holds the name.
    """
    _check_kind(kind)

    def decorate(thing: T) -> T:
        holder = _entries[kind].get(name)
        if holder is not None and (holder.__module__, holder.__qualname__) != (thing.__module__, thing.__qualname__):
            raise ConfigError(describe(f"{kind} {name!r}", "is already registered", holder, "Choose another name"))
        _entries[kind][name] = thing
        if kind in ("strategy", "run"):
            thing.name = name
        return thing

    return decorate


def names(kind: str) -> list[str]:
    """Return the registered names of `kind`, sorted."""
    _check_kind(kind)
    _import_package(PACKAGES[kind])
    return sorted(_entries[kind])


def find(kind: str, name: str, where: str = "") -> Any:
    """Return what is registered as `name`; `package.module:Class` imports code from outside the tree.

    Raises:
        ConfigError: if there is no such name; the message gives the nearest one.
    """
    where = where or kind
    if isinstance(name, str) and ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            thing = vars(importlib.import_module(module_name))[attribute]
        except Exception as error:  # whatever a user's module raises as it is imported
            told = str(error) if isinstance(error, ImportError | KeyError) else f"{type(error).__name__}: {error}"
            way_out = "Write package.module:Class of something importable"
            raise ConfigError(describe(where, f"can't be imported ({told})", name, way_out)) from error
        if not _can_be(kind, thing):
            raise ConfigError(describe(where, f"can't be a {kind}", name, f"Name {WANTED.get(kind, 'a dataclass')}"))
        return thing
    known = names(kind)
    if not isinstance(name, str) or name not in _entries[kind]:
        raise ConfigError(describe(where, f"is no {kind}", name, f"{nearest(name, known)}Known: {', '.join(known)}"))
    return _entries[kind][name]


def _can_be(kind: str, thing: Any) -> bool:
    if kind in ("verifier", "reward", "operation"):
        return callable(thing)
    if kind == "problem":
        return isinstance(thing, type) and set(PUZZLE) <= set(dir(thing))
    if kind == "run":
        return isinstance(thing, type) and {"learn", "summarise"} <= set(dir(thing))
    return isinstance(thing, type) and is_dataclass(thing)


def _check_kind(kind: str) -> None:
    if kind not in PACKAGES:
        raise ConfigError(describe("register", "unknown kind", kind, f"Kinds: {', '.join(PACKAGES)}"))


def _import_package(package_name: str) -> None:
    """Import every module below a package once, in sorted order, so that its register lines run."""
    if package_name in _imported:
        return
    _imported.add(package_name)
    package = importlib.import_module(package_name)
    for module in sorted(pkgutil.walk_packages(package.__path__, package_name + "."), key=lambda found: found.name):
        importlib.import_module(module.name)
