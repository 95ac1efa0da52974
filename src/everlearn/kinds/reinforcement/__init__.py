"""Reinforcement: tasks are learned from what the model's own answers are worth."""

from everlearn.kinds.reinforcement.kind import Reinforcement

__all__ = ["Reinforcement"]
