"""What is registered, told from its class: one line, the sections of its docstring, its options and their defaults."""

import dataclasses
import inspect
import re

from everlearn.strategy import Strategy

SECTIONS = ("Args", "Cost", "Licence", "Source", "Departs", "Reproduces")


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a class: its type and default, as one writes them."""

    name: str
    type: str
    default: str


def summary(thing: object) -> str:
    """Return the first sentence or paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def section(thing: object, name: str) -> str:
    """Return what a docstring says after `Name:`, up to the next section or empty line, on one line."""
    stops = "|".join(rf"\s{other}:" for other in SECTIONS)
    text = inspect.getdoc(thing) or ""
    found = re.search(rf"(?:^|\s){name}:(.*?)(?={stops}|\n\n|$)", text, re.DOTALL)
    return " ".join(found.group(1).split()) if found else ""


def options(cls: type) -> list[Option]:
    """Return the fields that one may set; a learned one is none."""
    found = []
    for field in dataclasses.fields(cls):
        if field.init:
            given = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            default = "" if given is dataclasses.MISSING else repr(given)
            found.append(Option(field.name, inspect.formatannotation(field.type), default))
    return found


def limits(cls: type[Strategy]) -> list[tuple[str, str]]:
    """Return what a strategy can't stand beside or work with, each with the reason; and whether it isolates tasks."""
    found = [(f"not beside {other}", reason) for other, reason in sorted(cls.conflicts.items())]
    found += [(f"not for {trait.replace('_', ' ')}", reason) for trait, reason in sorted(cls.unsuited.items())]
    if cls.isolates:
        found.append(("isolates", "what earlier tasks answer stays the same, bit for bit"))
    if cls.protects:
        found.append(("protects", "it holds what earlier tasks answer: not beside a method that isolates tasks"))
    return found
