"""How numbers and names are written in tables and pictures."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

TITLES = {
    "average_accuracy": "average accuracy",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
    "forgetting": "forgetting",
    "learning_accuracy": "learning accuracy",
    "stability": "stability",
    "plasticity": "plasticity",
}
UNITS = {  # scores that are no share of right answers, and how a note calls them
    "token_log_likelihood": "mean log-likelihood of a token (nats)",
    "negative_mae": "minus the mean absolute error",
    "negative_mse": "minus the mean squared error",
    "reward_margin": "mean reward margin",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's correlation",
}
SIGNED = ("backward_transfer", "forward_transfer")


def title(name: str, measures: Collection[str]) -> str:
    """Return how a stream metric is called over tasks scored by `measures`: no accuracy where none was measured."""
    return TITLES[name].replace("accuracy", "score") if set(measures) & set(UNITS) else TITLES[name]


def measures_note(measures: Collection[str]) -> str:
    """Return a sentence on what the scores are, or nothing where all are shares of right answers."""
    named = sorted(UNITS.get(measure, measure.replace("_", " ")) for measure in measures)
    return f"Scores: {', '.join(named)}." if set(measures) & set(UNITS) else ""


def number(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """Return a number with fixed digits, a real minus sign, and a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def estimate(entry: Mapping[str, Any] | None, signed: bool = False) -> tuple[str, str]:
    """Return the mean and the interval, `("0.412", "[0.360, 0.470]")`, of an entry of a results summary."""
    if entry is None or entry["mean"] is None:
        return "–", ""
    if entry["low"] is None or entry["high"] is None:
        return number(entry["mean"], signed), ""
    bounds = (number(entry[end], signed) for end in ("low", "high"))
    return number(entry["mean"], signed), "[" + ", ".join(bounds) + "]"


def p_text(p_value: float) -> str:
    """Return a p-value, never as a bare zero."""
    if not math.isfinite(p_value):
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def duration(seconds: float) -> str:
    """Return seconds as `12 s`, `3.4 min` or `2.1 h`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 3600 else f"{seconds / 3600:.3g} h"


def count(n: float) -> str:
    """Return a count as `950`, `12.3 k` or `4.5 M`."""
    return _scaled(n, 1000, ("", " k", " M", " G", " T"))


def size(n_bytes: float) -> str:
    """Return bytes as `512 B`, `1.4 KiB`, `3 MiB`."""
    return _scaled(n_bytes, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def short(name: str, limit: int) -> str:
    """Return a name of at most `limit` characters: the middle goes, for names often differ at the end."""
    name = " ".join(name.split())
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 3
    return name[: limit - 1 - tail] + "…" + (name[-tail:] if tail else "")


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if abs(value) < base:
            return f"{value:.3g}{unit}"
        value /= base
    return f"{value:.4g}{units[-1]}"
