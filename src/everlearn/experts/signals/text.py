"""Text signal: what a task's description says, and on request its inputs, as the base or another encoder reads it."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError, describe
from everlearn.experts.signals.passes import hidden_states, mean_states
from everlearn.models.load import Model, ModelConfig, load_model
from everlearn.models.objectives import padded, to_device
from everlearn.models.special import padding_id
from everlearn.models.without import base_of
from everlearn.types import Row, Task


class TextSignal:
    """The mean of the last hidden states over the tokens of a text.

    Args:
        encoder: name of the model that reads the texts, as `ModelConfig.name`; None: the base itself.
        with_inputs: the example inputs count as much, all together, as the description.

    Raises:
        ModelError: if the encoder can't be loaded.
    """

    def __init__(self, model: Model, encoder: str | None = None, *, with_inputs: bool = False):
        self.model, self.with_inputs = model, with_inputs
        self.reader = model if encoder is None else load_model(ModelConfig(encoder), [Task("text", "classify", [], [])])
        self.width = self.reader.network.config.get_text_config().hidden_size

    def of(self, description: str, rows: Sequence[Row]) -> torch.Tensor:
        """Return the signal of a task, norm 1 [width] on the CPU.

        Raises:
            ConfigError: if the description is empty.
        """
        if not description.strip():
            way_out = "Say in a few words what the task is"
            raise ConfigError(describe("task: description", "is empty", description, way_out))
        vector = self.vectors([description])[0]
        if self.with_inputs and rows:
            vector = vector + self.vectors([input_text(self.model, row) for row in rows]).mean(0)
        return F.normalize(vector, dim=0)

    def vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """Return a vector of norm 1 for each text [n_texts, width]; of one beyond the context, its start's."""
        reader, found = self.reader, []
        with base_of(reader):
            for text in texts:  # one by one: so few are no faster in a batch, and none is padded
                options = {"truncation": True, "max_length": reader.objective.max_length, "verbose": False}
                ids = reader.tokenizer(text, **options)["input_ids"] or [padding_id(reader.tokenizer)]
                batch = {"input_ids": padded([ids], 0), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
                batch = to_device(batch, next(reader.network.parameters()).device)
                found.append(mean_states(hidden_states(reader, batch), batch["attention_mask"])[0].cpu())
        return F.normalize(torch.stack(found), dim=1)


def input_text(model: Model, row: Row) -> str:
    """Return what is asked in a row, as a text."""
    if model.kind == "causal":
        return row["text"] if "text" in row else model.objective.prompt_and_completion(row)[0]
    if "tokens" in row:
        return " ".join(row["tokens"])
    return " ".join(filter(None, (row["text"], row.get("text_pair"))))
