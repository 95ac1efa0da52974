"""The errors that users meet, all in one sentence: where, what, the value, the way out."""

import difflib
from collections.abc import Iterable


class EverlearnError(Exception):
    """Base of every error that everlearn raises on bad input or damaged state.

    The message reads `<where>: <what is wrong>. Got <value>. <allowed values or the way out>.`
    """


class ConfigError(EverlearnError):
    """A recipe, a command-line option or a constructor argument is wrong."""


class StreamError(EverlearnError):
    """Data can't be read, or a row is bad."""


class ModelError(EverlearnError):
    """A model, tokenizer or adapter can't be loaded or used as asked."""


class StateError(EverlearnError):
    """A checkpoint, a run folder or a model home is damaged, missing or full."""


class TrainingError(EverlearnError):
    """Training can't go on: a loss is not finite, or processes disagree."""


class Paused(Exception):
    """No error: the user asked to pause (SIGINT), and the state is saved. Its text is the run's folder."""


def describe(where: str, what: str, got: object, way_out: str) -> str:
    """Return the one-sentence message of an error: `<where>: <what>. Got <value>. <way out>.`"""
    return f"{where}: {what}. Got {shown(got)}. {way_out.rstrip('.')}."


def shown(value: object) -> str:
    """Return a value as Python writes it, cut to 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return "Did you mean 'x'? " for the allowed name closest to `name`, or an empty string."""
    match = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f"Did you mean {match[0]!r}? " if match else ""


def check_number(
    where: str, value: object, *, low: float = -float("inf"), high: float = float("inf"), above: float | None = None
) -> None:
    """Raise ConfigError unless `value` is a finite number with low <= value <= high (and > above, where given)."""
    bounds = f"at least {low:g}" if above is None else f"above {above:g}"
    way_out = f"Give a number {bounds}" + (f" and at most {high:g}" if high != float("inf") else "")
    good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    good = good and abs(value) < float("inf")
    if not good or (above is not None and not value > above):
        raise ConfigError(describe(where, "is out of range", value, way_out))


def check_choice(where: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ConfigError unless `value` is one of `allowed`."""
    allowed = list(allowed)
    if value not in allowed:
        raise ConfigError(
            describe(where, "is unknown", value, f"{nearest(str(value), allowed)}Allowed: {', '.join(allowed)}")
        )
