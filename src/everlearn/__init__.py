"""everlearn: continual learning for language models. Keep teaching a model, keep what it knows."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everlearn.config import load_recipe
    from everlearn.experience import ExperienceReplay
    from everlearn.learners.bridge import continual
    from everlearn.learners.meta import MetaLearner
    from everlearn.lifelong import LifelongTrainer
    from everlearn.lifelong_model import LifelongConfig, LifelongModel
    from everlearn.registry import register
    from everlearn.runs import resume, run
    from everlearn.strategy import Strategy
    from everlearn.task_data import TaskConfig
    from everlearn.trainer import ContinualTrainer
    from everlearn.types import Stream, Task

__all__ = [
    "ContinualTrainer", "ExperienceReplay", "LifelongConfig", "LifelongModel", "LifelongTrainer", "MetaLearner",
    "Strategy", "Stream", "Task", "TaskConfig", "continual", "load_recipe", "register", "resume", "run",
]  # fmt: skip

# each is imported when it is first asked for: the command line answers --help without waiting for torch
_MODULES = {
    "ContinualTrainer": "everlearn.trainer",
    "ExperienceReplay": "everlearn.experience",
    "LifelongConfig": "everlearn.lifelong_model",
    "LifelongModel": "everlearn.lifelong_model",
    "LifelongTrainer": "everlearn.lifelong",
    "MetaLearner": "everlearn.learners.meta",
    "Strategy": "everlearn.strategy",
    "Stream": "everlearn.types",
    "Task": "everlearn.types",
    "TaskConfig": "everlearn.task_data",
    "continual": "everlearn.learners.bridge",
    "load_recipe": "everlearn.config",
    "register": "everlearn.registry",
    "resume": "everlearn.runs",
    "run": "everlearn.runs",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'everlearn' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
