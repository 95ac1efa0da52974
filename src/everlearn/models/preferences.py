"""Learning which of two answers is preferred: direct preference optimisation, by a language model and its base."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from everlearn.errors import ConfigError, describe
from everlearn.models.causal import CausalObjective
from everlearn.models.objectives import Batch, Features
from everlearn.models.tokens import TokenFeatures
from everlearn.types import Outputs, Row, Rows, Task

SIDES = ("chosen", "rejected")


@dataclass(frozen=True, eq=False)
class AnsweredRows(Sequence):
    """Rows of preferences as prompts with one of their two answers."""

    rows: Rows
    side: str

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return (answered(row, self.side) for row in self.rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [answered(row, self.side) for row in self.rows[index]]
        return answered(self.rows[index], self.side)


@dataclass(frozen=True, eq=False)
class PairFeatures(Sequence):
    """Encoded pairs: for each row its prompt with the chosen answer, and with the rejected one."""

    chosen: TokenFeatures
    rejected: TokenFeatures
    beta: float

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return {"chosen": self.chosen[index], "rejected": self.rejected[index], "beta": self.beta}

    @property
    def sizes(self) -> np.ndarray:
        """How many tokens the prompt and the longer answer had before anything was cut [n, 2]."""
        return np.maximum(self.chosen.sizes, self.rejected.sizes)

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens the longer of each row's two texts has [n], int64."""
        return np.maximum(self.chosen.lengths, self.rejected.lengths)


class PreferenceObjective(CausalObjective):
    """A pair is right where the model has come to prefer the chosen answer more than its base does.

    The margin of a pair is m = beta ((log p(c) - log p_base(c)) - (log p(r) - log p_base(r))), log p(a) the sum over
    the answer's tokens, and its loss -log sigmoid(m): that of a binary choice whose logit is m, so that `outputs` are
    those of one label that is there. The base is the model without what was added to it (LoRA, prompt, prefix).
    Batches have two sequences a row: [batch, 2, sequence], chosen first. Rows that are no pairs are learned and scored
    as a language model does.

    Cost: a pass more, without gradients, for the base.

    Source: Rafailov et al. 2023, arXiv 2305.18290, eq. 7; TRL's `sigmoid` loss.
    """

    traits: ClassVar[tuple[str, ...]] = ("preferences",)
    base: Callable[[], AbstractContextManager[None]] | None = None  # lets the model answer as its base

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model out: a worker process only puts batches together."""
        return {**super().__getstate__(), "base": None}

    def encode(self, rows: Rows, task: Task, told: Callable[[int], None] | None = None) -> Features:
        """Turn rows into features."""
        if task.kind != "preference":
            return super().encode(rows, task, told)
        pairs = (super(PreferenceObjective, self).encode_answers(AnsweredRows(rows, side), task) for side in SIDES)
        features = PairFeatures(*pairs, task.beta)
        if told is not None:
            told(len(rows))
        return features

    def encode_answers(self, rows: Rows, task: Task) -> Features:
        """Turn rows into features to score."""
        return self.encode(rows, task) if task.kind == "preference" else super().encode_answers(rows, task)

    def lengths(self, rows: Rows, task: Task) -> list[tuple[int, int]]:
        """Return how many tokens the prompt and the chosen answer of each row have, before anything is cut."""
        return super().lengths(AnsweredRows(rows, "chosen") if task.kind == "preference" else rows, task)

    def prompt_and_completion(self, row: Row) -> tuple[str, str]:
        """Return a row's prompt and chosen answer as two texts."""
        return super().prompt_and_completion(answered(row, "chosen") if "chosen" in row else row)

    def is_chat(self, row: Row) -> bool:
        """Return whether a row is a conversation, or is put as one."""
        return super().is_chat(row) or isinstance(row.get("prompt"), list | tuple)

    def collate(self, picked: list[dict[str, Any]]) -> Batch:
        """Return a batch [batch, 2, sequence], with each row's beta [batch].

        Raises:
            ConfigError: if some rows are pairs and others are not.
        """
        n_pairs = sum("chosen" in feature for feature in picked)
        if not n_pairs:
            return super().collate(picked)
        if n_pairs < len(picked):
            way_out = "Put tasks of preferences and others into different runs"
            raise ConfigError(describe("batch", "mixes pairs with other rows", f"{n_pairs} of {len(picked)}", way_out))
        both = super().collate([feature[side] for side in SIDES for feature in picked])
        batch = {name: tensor.view(2, n_pairs, -1).transpose(0, 1).contiguous() for name, tensor in both.items()}
        return {**batch, "beta": torch.tensor([feature["beta"] for feature in picked])}

    def forward(self, network: nn.Module, batch: Batch, past: Sequence[str] = ()) -> Outputs:
        if "beta" not in batch:
            return super().forward(network, batch, past)
        flat = {name: tensor.flatten(0, 1) for name, tensor in batch.items() if name != "beta"}
        with self.base():
            before = self._log_likelihoods(network, flat)
        margins = batch["beta"] * (self._log_likelihoods(network, flat) - before).view(-1, 2).diff(dim=1)[:, 0].neg()
        logits, owners = margins[:, None], torch.arange(len(margins), device=margins.device)
        return Outputs(logits, torch.ones_like(logits), owners, [logits] if past else [], binary=True)

    def n_items(self, batch: Batch) -> int:
        return len(batch["beta"]) if "beta" in batch else super().n_items(batch)

    def items_of_rows(self, batch: Batch) -> torch.Tensor:
        if "beta" not in batch:
            return super().items_of_rows(batch)
        return torch.ones(len(batch["beta"]), dtype=torch.long, device=batch["beta"].device)

    def _log_likelihoods(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the summed log-likelihood of each sequence's answer [n_sequences], nats."""
        outputs = super().forward(network, batch)
        log_p = outputs.logits.float().log_softmax(-1).gather(1, outputs.targets[:, None])[:, 0]
        return log_p.new_zeros(len(batch["labels"])).index_add(0, outputs.owners, log_p)


def answered(row: Row, side: str) -> Row:
    """Return a row of preferences as a prompt with one of its two answers."""
    if isinstance(row["prompt"], str):
        return {"prompt": row["prompt"], "completion": row[side]}
    return {"messages": [*row["prompt"], {"role": "assistant", "content": row[side]}]}
