"""Several rows in one sequence, kept apart by their positions, which begin at 0 in each: no padding, or little."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from everlearn.errors import ConfigError, describe
from everlearn.models.adapters import is_peft, language_model
from everlearn.models.causal import CausalObjective
from everlearn.models.dtypes import TOLERANCE
from everlearn.models.objectives import Batch
from everlearn.models.positions import parameters_of
from everlearn.models.prompts import prompts_of
from everlearn.types import IGNORED

if TYPE_CHECKING:
    from everlearn.models.load import Model

NO_ROW = -1  # of padding
LENGTHS = (5, 9)  # of the two rows that a model is tried with


def collate_packed(objective: CausalObjective, picked: list[dict[str, Any]], *, in_one: bool) -> Batch:
    """Make a batch of rows, in as few sequences as it goes, none longer than the longest row (or all in one).

    Args:
        picked: rows, as `objective.take` returns them. in_one: for attention that doesn't pay for what it masks.

    Returns:
        input_ids, labels (a row's first token is none: what stands before it is another row's), position_ids, which
        begin at 0 with each row, and rows, the number of each token's row, NO_ROW for padding; all int64 [n_sequences,
        length]. Where no two rows fit together, what `objective.collate` returns.

    Cost: the rows in order of length, each into the first sequence with room (first-fit decreasing), which takes at
    most 11/9 as many sequences as needed, and one more.
    """
    lengths = [len(row["input_ids"]) for row in picked]
    size = sum(lengths) if in_one else max(lengths)
    rooms: list[int] = []
    places: dict[int, tuple[int, int]] = {}  # row: sequence, first token
    for row in sorted(range(len(picked)), key=lambda row: -lengths[row]):
        sequence = next((n for n, room in enumerate(rooms) if room >= lengths[row]), len(rooms))
        if sequence == len(rooms):
            rooms.append(size)
        places[row] = (sequence, size - rooms[sequence])
        rooms[sequence] -= lengths[row]
    if len(rooms) == len(picked):
        return objective.collate(picked)
    names = {"input_ids": objective.pad_id, "labels": IGNORED, "position_ids": 0, "rows": NO_ROW}
    batch = {name: np.full((len(rooms), size), value, np.int64) for name, value in names.items()}
    for row, (sequence, start) in places.items():
        stop = start + lengths[row]
        batch["input_ids"][sequence, start:stop] = picked[row]["input_ids"]
        batch["labels"][sequence, start + 1 : stop] = picked[row]["labels"][1:]
        batch["position_ids"][sequence, start:stop] = np.arange(lengths[row])
        batch["rows"][sequence, start:stop] = row
    for sequence, room in enumerate(rooms):
        batch["position_ids"][sequence, size - room :] = np.arange(room)
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def takes_all_in_one(network: nn.Module) -> bool:
    """Tell whether the attention works row by row within a sequence, so that a long one costs no more."""
    implementation = language_model(network).config._attn_implementation
    return implementation is not None and implementation.startswith("flash")


def check_packing(model: "Model") -> None:
    """Do nothing if the model keeps the rows of a sequence apart: tried with two rows, in evaluation mode.

    Raises:
        ConfigError: if it doesn't, with the reason.
    Cost: three passes over 14 tokens.
    """
    reason = _why_not(model)
    if reason is not None:
        raise ConfigError(describe("learner.packing", reason, True, "Leave it out; rows of like length waste little"))


def _why_not(model: "Model") -> str | None:
    network = model.network
    if model.kind != "causal":
        return f"is for language models that write, and these rows are learned by one of kind {model.kind}"
    if "preferences" in model.objective.traits:
        return "takes one text a row, and preferences have two"
    if prompts_of(network) is not None or (is_peft(network) and network.active_peft_config.is_prompt_learning):
        return "soft prompts and prefixes stand before a sequence once, not before each of its rows"
    name = type(language_model(network)).__name__
    if "position_ids" not in parameters_of(type(language_model(network))):
        return f"{name} takes no positions, by which it could keep rows apart"
    with torch.no_grad(), model.evaluating():
        if not _keeps_apart(network):
            return f"{name} mixes the rows of a sequence (tried with two)"
    return None


def _keeps_apart(network: nn.Module) -> bool:
    """Tell whether a row's logits are those that it has alone, and don't change with the row before it."""
    device = next(network.parameters()).device
    n_sequences = 1 if takes_all_in_one(network) else 2
    n_words = network.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(0)
    first, other, second = (torch.randint(n_words, (n,), generator=generator) for n in (LENGTHS[0], *LENGTHS))
    positions = torch.cat([torch.arange(n) for n in LENGTHS]).expand(n_sequences, -1).to(device)

    def logits(*rows: torch.Tensor, **options: Any) -> torch.Tensor:
        ids = torch.cat(rows).expand(n_sequences, -1).to(device)
        return network(input_ids=ids, use_cache=False, **options).logits[:, -len(second) :].float()

    alone = logits(second)
    behind, behind_other = (logits(row, second, position_ids=positions) for row in (first, other))
    scale = max(1.0, alone.abs().max().item())
    moved, apart = (behind - behind_other).abs().max().item(), (behind - alone).abs().max().item()
    return moved <= 1e-5 * scale and apart <= TOLERANCE.get(next(network.parameters()).dtype, 1e-3) * scale
