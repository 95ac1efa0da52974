"""Rewards of the tests' own; this module needs no torch, so that worker processes import it in no time."""

import os
from collections.abc import Mapping
from typing import Any


def judge(prompt: str, response: str, row: Mapping[str, Any]) -> float:
    """Return 1 for an answer that begins low; on problems that begin with 1, fail as FAULT in the environment says."""
    fault = os.environ["FAULT"] if prompt.lstrip("t").startswith("1 ") else ""
    if fault == "raises":
        raise ValueError("no such thing")
    while fault == "hangs":
        pass
    return float("nan") if fault == "nan" else float(bool(response) and ord(response[0]) < 80)
