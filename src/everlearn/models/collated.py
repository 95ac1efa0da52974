"""Rows that another library's trainer prepared, put into batches by its data collator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from everlearn.errors import ConfigError, describe
from everlearn.models.causal import NextToken
from everlearn.models.objectives import Batch, padded
from everlearn.types import IGNORED, Rows, Task

Inputs = Mapping[str, Any]  # what a trainer's `compute_loss` is handed


def batch_of_rows(inputs: Inputs) -> Batch:
    """Return the tensors that the model is called with, and `labels`; of `transformers.Trainer` and `SFTTrainer`."""
    names = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "labels")
    return {name: inputs[name] for name in names if isinstance(inputs.get(name), torch.Tensor)}


def batch_of_preferences(inputs: Inputs) -> Batch:
    """Return the chosen answers to a `DPOTrainer`'s prompts, which are the first half of its rows."""
    half = {name: inputs[name][: len(inputs[name]) // 2] for name in ("input_ids", "attention_mask", "completion_mask")}
    labels = half["input_ids"].masked_fill(half.pop("completion_mask") == 0, IGNORED)
    return {**half, "labels": labels}


def batch_of_rollouts(inputs: Inputs) -> Batch:
    """Return the model's own answers to a `GRPOTrainer`'s prompts; what a tool wrote is no target."""
    prompts, answers = inputs["prompt_ids"], inputs["completion_ids"]
    written = inputs["completion_mask"] * inputs.get("tool_mask", 1)
    return {
        "input_ids": torch.cat([prompts, answers], 1),
        "attention_mask": torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
        "labels": torch.cat(
            [torch.full_like(prompts, IGNORED), answers.masked_fill(written == 0, IGNORED)], 1
        ),
    }  # fmt: skip


@dataclass
class CollatedObjective(NextToken):
    """Next-token prediction on rows that a trainer prepared.

    Attributes:
        collator: the trainer's: rows -> inputs. batch_of: inputs -> batch.
    """

    collator: Callable[[list[Any]], Inputs]
    batch_of: Callable[[Inputs], Batch]

    def encode(self, rows: Rows, task: Task, told: Callable[[int], None] | None = None) -> Rows:
        """Return the rows as they are: they are tokens already."""
        return rows

    def encode_answers(self, rows: Rows, task: Task) -> Rows:
        """Return the rows as they are."""
        return rows

    def take(self, features: Rows, indices: list[int]) -> list[dict[str, Any]]:
        return [dict(features[i]) for i in indices]

    def collate(self, picked: list[dict[str, Any]]) -> Batch:
        return self.batch_of(self.collator(picked))


@dataclass(frozen=True)
class RolloutCollator:
    """Puts rollouts into batches, padded on the right: rows of `input_ids` and `labels`."""

    pad_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        """Return the batch.

        Raises:
            ConfigError: if the rows are prompts, which have no right answer.
        """
        if "labels" not in rows[0]:
            way_out = "Use replay with selection: reservoir"
            what = "what a method measures on rows needs answers, and a prompt has none"
            raise ConfigError(describe("GRPOTrainer", what, sorted(rows[0]), way_out))
        return {
            "input_ids": padded([row["input_ids"] for row in rows], self.pad_id),
            "labels": padded([row["labels"] for row in rows], IGNORED),
            "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0),
        }


def rollout_rows(batch: Batch) -> list[dict[str, list[int]]]:
    """Return the rows of a batch without their padding."""
    kept = batch["attention_mask"].bool()
    return [
        {name: batch[name][i][kept[i]].tolist() for name in ("input_ids", "labels")} for i in range(len(kept))
    ]  # fmt: skip
