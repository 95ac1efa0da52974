"""Plain training, one task after another: the baseline that forgets."""

from dataclasses import dataclass
from typing import ClassVar

from everlearn.registry import register
from everlearn.strategy import Strategy


@register("strategy", "none")
@dataclass
class Plain(Strategy):
    """Do nothing against forgetting.

    Source: no method; the lower baseline of every comparison (McCloskey & Cohen 1989 describe what happens).
    Reproduces: not applicable.
    """

    on_shards: ClassVar[bool] = True
    neutral: ClassVar[dict] = {}
