"""One step of pretraining: the weighted loss, the schedule, and the place where a run stands."""

from bisect import bisect_right
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from everlearn.errors import TrainingError, describe
from everlearn.models.pocket.batches import Batch
from everlearn.models.pocket.corpus import OPENING
from everlearn.models.pocket.recipe import PocketRecipe


@dataclass
class Position:
    """Where a run stands.

    step, n_tokens: done so far. window, batch: the next batch to read. progress: the share of the run that was done
    when the window was asked for, which sets its levels. ahead: that of the windows after it that other processes
    draw meanwhile. train_s: seconds spent. log: the lines of log.json.
    """

    step: int = 0
    n_tokens: int = 0
    window: int = 0
    batch: int = 0
    progress: float = 0.0
    ahead: list[float] = field(default_factory=list)
    train_s: float = 0.0
    log: list[dict] = field(default_factory=list)


def train_step(
    recipe: PocketRecipe,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    batch: Batch,
    position: Position,
) -> float:
    """Take one optimizer step on a batch and return its loss.

    Raises:
        TrainingError: if the loss is not finite.
    """
    rate = learning_rate(recipe, position.step, position.n_tokens)
    outer, adamw, muon = optimizers
    active = (outer, adamw if position.progress < OPENING else muon)
    for optimizer in active:
        for group in optimizer.param_groups:
            group["lr"] = rate
    ids, weights = batch.ids.to(model.device), batch.weights.to(model.device)
    # bfloat16 also on CPUs that only emulate it: slower there, but the same model
    with torch.autocast(model.device.type, torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits
    loss = weighted_loss(logits, ids, weights)
    if not torch.isfinite(loss):
        where = f"pretrain, step {position.step}, window {position.window}, batch {position.batch}"
        raise TrainingError(describe(where, "the loss is not finite", loss.item(), "Lower learning_rates and resume"))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    for optimizer in active:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def weighted_loss(logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of each token's surprise: Σ w·(-log p) / Σ w.

    Args:
        logits: [rows, tokens, vocabulary]; position t predicts token t + 1.
        ids: [rows, tokens].
        weights: [rows, tokens], the weight of each token as a target; column 0 is never one.

    Returns:
        A scalar, in nats.
    """
    surprise = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    targets = weights[:, 1:].flatten()
    return (surprise * targets).sum() / targets.sum()


def learning_rate(recipe: PocketRecipe, step: int, n_tokens: int) -> float:
    """Return the rate of a step: straight lines between the recipe's points, times a linear warm-up over steps."""
    done = min(1.0, n_tokens / recipe.total_tokens)
    shares, rates = zip(*recipe.learning_rates, strict=True)
    right = bisect_right(shares, done)
    if right == len(shares):
        rate = rates[-1]
    else:
        way = (done - shares[right - 1]) / (shares[right] - shares[right - 1])
        rate = rates[right - 1] + way * (rates[right] - rates[right - 1])
    return min(1.0, (step + 1) / max(1, recipe.warmup_steps)) * rate
