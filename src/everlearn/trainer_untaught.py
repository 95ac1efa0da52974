"""A model as it was before its first task: what forward transfer is counted from."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from everlearn.models.given import Given
from everlearn.models.load import Model, ModelConfig, load_model
from everlearn.types import Score, Task
from everlearn.way import Run


@dataclass(frozen=True)
class Untaught:
    """Where the model comes from: how it is loaded, or a copy of the one that was handed over, which isn't trained."""

    source: ModelConfig | Given

    @classmethod
    def of(cls, source: ModelConfig | Given, saved: Mapping[str, torch.Tensor] | None = None) -> "Untaught":
        """Return it. saved: what `state` returned, where the one that is handed over now may have learned."""
        if isinstance(source, Given):
            source = replace(source, network=copy.deepcopy(source.network))
            source.network.load_state_dict(saved or {}, strict=False)
        return cls(source)

    def score(self, run: Run, task: Task) -> Score:
        """Return its score on a task's evaluation rows, its outputs those that the run's model had when they were new.

        Cost: loads the model, beside the run's; a pass over the rows.
        """
        model = load_model(Untaught.of(self.source).source, [task], run.seed, run.accelerator.device.type)
        for operation, arguments in run.model.adapters.log:
            if operation == "labels":
                model.adapters.do(operation, **arguments)
        alone = Run(
            model, run.learner, [], run.accelerator,
            seed=run.seed, eval_batch_size=run.eval_batch_size, keep_answers=run.keep_answers,
        )  # fmt: skip
        return alone.score(task)

    def state(self, model: Model) -> dict[str, Any]:
        """Return the values that training changes, of a network that was handed over; a loaded one is loaded again."""
        if not isinstance(self.source, Given):
            return {}
        changed = {name.removeprefix("buffer:") for name in model.adapters.tensors()}
        return {name: tensor for name, tensor in self.source.network.state_dict().items() if name in changed}
