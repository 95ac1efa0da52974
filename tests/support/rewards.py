"""Verifiers and rewards of the tests' own, which tiny models with random weights meet now and then."""

from collections.abc import Mapping
from typing import Any


def starts_low(answer: str, row: Mapping[str, Any]) -> bool:
    """A verifier: whether the first character is one of the first half of a byte's."""
    return bool(answer) and ord(answer[0]) < 80
