"""A model home: one model kept for years. Each learning makes a version, a gate watches what is lost."""

from everlearn.home.gate import Gate
from everlearn.home.home import Home, RetireReport
from everlearn.home.learning import LearnReport

__all__ = ["Gate", "Home", "LearnReport", "RetireReport"]
