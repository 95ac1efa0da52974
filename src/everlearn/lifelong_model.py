"""A model that learns one task after another: which technique, and what it is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from everlearn.config import build_learner, build_strategies, listed
from everlearn.evaluation.predict import uncertainty
from everlearn.experience import name_of
from everlearn.learners.budget import AUTO
from everlearn.models.load import ModelConfig
from everlearn.registry import find
from everlearn.spelling import STRATEGIES, strategies_of
from everlearn.strategies.grow import grow_run
from everlearn.strategy import Strategy
from everlearn.trainer import ContinualTrainer

USUAL = {"rehearsal": "replay", "experience_replay": "replay", "progressive": "pnn", "finetuning": "none"}


@dataclass(frozen=True)
class LifelongConfig:
    """How a model learns one task after another. What it leaves open is as in `ContinualTrainer`.

    Args:
        technique: any method of the registry by its name (`everlearn ls strategies`); rehearsal is replay, progressive
            pnn (progressive neural networks). Or a mapping with a name and settings, in their usual spelling too, such
            as {"name": "packnet", "prune_percentage": 0.75}; or a list of these, side by side.
        ewc_lambda: of techniques that are named alone and have it: ewc, gamma_ewc, rwalk.
        memory_size: rows kept by techniques that are named alone and keep any: replay, gem, agem, derpp, ...
        learning_rate, epochs, batch_size: the learner's; auto: by model and rows.
        learner: its other options.
        forward_transfer: score each task before it is learned too, by the model as it is and as it came, which is
            loaded once more for it.
        seed: of adapters, heads and the order of rows. device: auto, cpu or cuda. progress: see `ContinualTrainer`.

    Raises:
        ConfigError: if a technique is unknown, a setting out of range, or two techniques can't stand side by side.
    """

    technique: str | dict[str, Any] | list[str | dict[str, Any]] = "ewc"
    ewc_lambda: float | None = None
    memory_size: int | None = None
    learning_rate: float | Literal["auto"] = AUTO
    epochs: int | Literal["auto"] = AUTO
    batch_size: int | None = None
    learner: dict[str, Any] | None = None
    forward_transfer: bool = True
    seed: int = 0
    device: str = "auto"
    progress: bool | None = None

    def __post_init__(self) -> None:
        self.build_strategies()
        build_learner(self.learner_options())

    def learner_options(self) -> dict[str, Any]:
        """Return the options of the learner, as a recipe's `learner` has them."""
        sized = {} if self.batch_size is None else {"batch_size": self.batch_size}
        return {"learning_rate": self.learning_rate, "epochs": self.epochs, **sized, **(self.learner or {})}

    def build_strategies(self) -> list[Strategy]:
        """Return new strategies."""
        return build_strategies([self._strategy(one) for one in listed(self.technique)], "technique")

    def _strategy(self, one: str | Mapping[str, Any]) -> Strategy:
        settings = {"name": one} if isinstance(one, str) else dict(one)
        name = settings.pop("name", None)
        name = USUAL.get(name, name) if isinstance(name, str) else name
        find("strategy", name, "technique")
        if isinstance(one, str):
            both = {"ewc_lambda": self.ewc_lambda, "memory_size": self.memory_size}
            settings = {key: both[key] for key in both if both[key] is not None and key in STRATEGIES.get(name, ())}
        return strategies_of({"continual_strategy": {name: settings}})[0]


class LifelongModel:
    """A model that learns one task after another; `LifelongTrainer` teaches it.

    Args:
        base_model: whatever `ContinualTrainer` takes: a folder, a hub id, `pocket`, a `ModelConfig` or its mapping
            (head, adapter, ...), or a module that is loaded.
        tokenizer, model_options: of a module that is loaded, see there.
    """

    def __init__(
        self,
        base_model: str | Path | nn.Module | ModelConfig | Mapping[str, Any] = "pocket",
        lifelong_config: LifelongConfig | None = None,
        *,
        tokenizer: Any = None,
        model_options: Mapping[str, Any] | None = None,
    ):
        self.config = config = lifelong_config or LifelongConfig()
        self.trainer = ContinualTrainer(
            base_model, config.build_strategies(), config.learner_options(), tokenizer=tokenizer,
            model_options=model_options, seed=config.seed, device=config.device, progress=config.progress,
            evaluate_before=config.forward_transfer,
        )  # fmt: skip

    def predict(self, rows: Any, task_id: int | str | None = None, *, max_new_tokens: int | None = None) -> Any:
        """Return the answers to rows, as those of a task; see `ContinualTrainer.predict`."""
        name = None if task_id is None else name_of(task_id)
        return self.trainer.predict(rows, name, max_new_tokens=max_new_tokens)

    def predict_uncertainty(self, rows: Any, task_id: int | str | None = None) -> torch.Tensor:
        """Return the entropy of what the model predicts for each row [n], nats; see `everlearn.evaluation.predict`.

        Where tasks answer differently and none is named, each row's is that of the task that is surest of it.
        """
        tasks = self.trainer.answering(None if task_id is None else name_of(task_id))
        return torch.stack([uncertainty(self.trainer.run, task, rows) for task in tasks]).amin(0)

    def add_capacity(self, new_neurons: int = 64) -> dict[str, torch.Size]:
        """Add so many units to each hidden layer of an MLP, or so much rank to a LoRA; the answers stay the same.

        Returns:
            {name of a parameter that grew: the shape it had}.

        Raises:
            ConfigError, ModelError: if nothing was learned yet, or the model or the technique can't grow.
        """
        return grow_run(self.trainer.run, new_neurons)
