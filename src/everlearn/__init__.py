"""everlearn: continual learning for language models. Keep teaching a model, keep what it knows."""

from everlearn.config import load_recipe
from everlearn.registry import register
from everlearn.run import run
from everlearn.strategy import Strategy
from everlearn.trainer import ContinualTrainer
from everlearn.types import Stream, Task

__all__ = ["ContinualTrainer", "Strategy", "Stream", "Task", "load_recipe", "register", "run"]
