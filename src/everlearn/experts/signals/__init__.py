"""What a task is known by before anything is learned: its text, its gradient and its context under the frozen base."""

from everlearn.experts.signals.joining import Space
from everlearn.experts.signals.measuring import SignalConfig, Signals

__all__ = ["SignalConfig", "Signals", "Space"]
