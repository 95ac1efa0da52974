"""Deciding whether an expert of a library will do for a new task, or a new one is needed."""

from everlearn.experts.router.config import RouterConfig
from everlearn.experts.router.decision import Candidate, Decision
from everlearn.experts.router.router import Router

__all__ = ["Candidate", "Decision", "Router", "RouterConfig"]
