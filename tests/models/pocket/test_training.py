import math

import pytest
import torch

from everlearn.errors import TrainingError
from everlearn.models.pocket.batches import window
from everlearn.models.pocket.corpus import OPENING
from everlearn.models.pocket.network import build_network, build_optimizers
from everlearn.models.pocket.training import Position, learning_rate, train_step, weighted_loss


def test_the_loss_is_a_weighted_mean():
    logits = torch.tensor([[[0.0, 1.0], [2.0, 0.0], [9.0, 9.0]]])
    ids, weights = torch.tensor([[0, 1, 0]]), torch.tensor([[5.0, 0.5, 2.0]])
    first, second = math.log(1 + math.exp(-1)), math.log(1 + math.exp(-2))
    assert weighted_loss(logits, ids, weights).item() == pytest.approx((0.5 * first + 2 * second) / 2.5)


def test_the_rate_warms_up_and_runs_straight_between_its_points(tiny, change):
    points = ((0, 1.0), (0.5, 0.6), (0.5, 0.2), (1, 0.0))
    recipe = change(tiny, warmup_steps=10, total_tokens=1000, learning_rates=points)
    assert learning_rate(recipe, 0, 0) == pytest.approx(0.1)
    assert learning_rate(recipe, 9, 0) == 1.0
    assert learning_rate(recipe, 99, 250) == pytest.approx(0.8)
    assert learning_rate(recipe, 99, 500) == pytest.approx(0.2)
    assert learning_rate(recipe, 99, 750) == pytest.approx(0.1)
    assert learning_rate(recipe, 99, 1000) == learning_rate(recipe, 99, 2000) == 0.0


@pytest.mark.parametrize("progress", [0.0, OPENING])
def test_steps_lower_the_loss_by_adamw_in_the_opening_and_by_muon_after_it(tiny, tiny_tokenizer, change, progress):
    recipe = change(tiny, warmup_steps=0, total_tokens=10**9)
    model = build_network(recipe, tiny_tokenizer)
    optimizers, position = build_optimizers(recipe, model), Position(progress=progress)
    batch = window(tiny_tokenizer, recipe, 0, progress)[0]
    losses = [train_step(recipe, model, optimizers, batch, position) for _ in range(25)]
    assert losses[-1] < 0.8 * losses[0]
    _, adamw, muon = optimizers
    assert (bool(adamw.state), bool(muon.state)) == (progress == 0.0, progress == OPENING)


def test_a_loss_that_is_not_finite_stops(tiny, tiny_tokenizer):
    model = build_network(tiny, tiny_tokenizer)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    batch = window(tiny_tokenizer, tiny, 0, 0.0)[0]
    with pytest.raises(TrainingError, match="step 7, window 2, batch 1"):
        train_step(tiny, model, build_optimizers(tiny, model), batch, Position(step=7, window=2, batch=1))
