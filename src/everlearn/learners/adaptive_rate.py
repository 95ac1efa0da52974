"""A learning rate that follows the stream: up at a drift and while the loss rises, down while all is well."""

import math
from dataclasses import dataclass, field
from typing import Any

from everlearn.errors import check_number


@dataclass
class AdaptiveRate:
    """What a base rate is multiplied by, from row to row.

    After a drift it is `highest`. Else the mean loss of about the last `n_recent` rows is compared with that of the
    last `n_before`: times `up` where it is higher by more than `margin`, times `down` otherwise; within `lowest` and
    `highest`.

    Args:
        up, down: factors for each row; with 0.998 it halves in 350 quiet rows.
        lowest, highest: bounds of the factor.
        margin: share by which the recent loss must lie above the earlier one.

    Source: ours, after the "bold driver" of Battiti 1989 (Complex Systems 3), which lowers the rate where the error
        rises in one step: here the error is that of rows not seen before, so that its rising calls for learning faster.
    """

    up: float = 1.02
    down: float = 0.998
    lowest: float = 0.25
    highest: float = 4.0
    margin: float = 0.1
    n_recent: int = 20
    n_before: int = 200
    factor: float = field(default=1.0, init=False)
    n_rows: int = field(default=0, init=False)
    recent: float = field(default=0.0, init=False)  # mean loss, nats
    before: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        check_number("AdaptiveRate.up", self.up, low=1)
        check_number("AdaptiveRate.down", self.down, above=0, high=1)
        check_number("AdaptiveRate.lowest", self.lowest, above=0, high=1)
        check_number("AdaptiveRate.highest", self.highest, low=1)
        check_number("AdaptiveRate.margin", self.margin, low=0)
        check_number("AdaptiveRate.n_recent", self.n_recent, low=1)
        check_number("AdaptiveRate.n_before", self.n_before, low=self.n_recent)

    def observe(self, loss: float, drift: bool) -> float:
        """Take a row's loss before it was learned, and whether drift was noticed in it; return the next row's factor.

        Args:
            loss: in nats, 0 or more.
        """
        check_number("AdaptiveRate.observe", loss, low=0, high=math.inf)
        self.n_rows += 1
        self.recent += (loss - self.recent) / min(self.n_rows, self.n_recent)
        self.before += (loss - self.before) / min(self.n_rows, self.n_before)
        if drift:
            self.factor = self.highest
        else:
            rises = self.recent > self.before * (1 + self.margin)
            self.factor *= self.up if rises else self.down
        self.factor = min(self.highest, max(self.lowest, self.factor))
        return self.factor

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs, as JSON."""
        return {name: getattr(self, name) for name in ("factor", "n_rows", "recent", "before")}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the one that returned `state` stood."""
        self.factor, self.n_rows = state["factor"], state["n_rows"]
        self.recent, self.before = state["recent"], state["before"]
