"""Synaptic intelligence beside a slow version of the paper's equations (reference/regularisation.py).

Avalanche 0.6 (training/plugins/synaptic_intelligence.py) computes it otherwise (benchmarks/importance.py has numbers):
- On the CPU its "old" weights are views of the live ones (`detach().cpu().flatten()`), so that both the path integral
  and the pull are exactly 0; it works on a GPU, where `.cpu()` copies. We copy.
- Its gradient is that of the loss with the penalty; the paper's, and ours, is of the loss without it.
- It clips the importance above at 0.001 and lets negative ones push weights away; we clip below at 0 and not above.
Alike: the movement is the optimizer's real one, omega starts anew with each task, the importance is summed over tasks,
weights are pulled to those of the last task, and the penalty has the factor 1/2.
"""

import pytest
import torch

from everlearn.strategies.si import path_importance
from reference import regularisation
from support.runs import assert_same, assert_unused_heads_stay, make_bench, weights


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert)


def test_the_importance_is_the_curvature_where_the_loss_is_quadratic_and_0_where_it_rose():
    curvature, moved = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([0.5, -2.0, 1.0])
    saved = 0.5 * curvature * moved**2  # going down to the minimum of 1/2 h d^2
    torch.testing.assert_close(path_importance(saved, moved, 1e-9), curvature / 2, rtol=1e-5, atol=0)
    assert path_importance(torch.tensor([-1.0]), torch.tensor([1.0]), 0.1).item() == 0
    assert path_importance(torch.tensor([1.0]), torch.tensor([0.0]), 0.1).item() == pytest.approx(10)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_it_equals_the_reference(plain, accumulation):
    options = {"optimizer": "sgd", "clip": None, "learning_rate": 0.1, "epochs": 1}
    method = {"name": "si", "strength": 30.0, "damping": 0.01}
    run = plain.run([method], batch_size=4 // accumulation, accumulation=accumulation, **options)
    begin = weights(run)
    plain.learn(run)
    wanted, precision = regularisation.si(
        begin, plain.tasks, strength=30.0, damping=0.01, seed=0, batch_size=4, learning_rate=0.1
    )  # fmt: skip
    assert_same(weights(run), wanted, tolerance=1e-5)
    assert_same(run.strategies[0].precision_, precision, tolerance=1e-4)
    loose, _ = regularisation.si(
        begin, plain.tasks, strength=0.0, damping=0.01, seed=0, batch_size=4, learning_rate=0.1
    )  # fmt: skip
    assert max((wanted[name] - loose[name]).abs().max() for name in wanted) > 0.01


def test_the_gradient_is_read_before_its_own_pull_and_before_clipping(plain):
    """With a clipped step the movement is small, the gradient whole."""
    found = []
    for clip in (None, 1e-3):
        run = plain.run([{"name": "si", "strength": 0.0}], optimizer="sgd", learning_rate=1.0, epochs=1, clip=clip)
        run.learner = type(run.learner)(**{**vars(run.learner), "batch_size": len(plain.tasks[0].train)})  # one step
        begin = weights(run)
        plain.learn(run, upto=1)
        moved = {name: p - begin[name] for name, p in weights(run).items()}
        found.append((moved, run.strategies[0].precision_))
    (whole, of_whole), (clipped, of_clipped) = found
    for name, movement in whole.items():  # lr 1: movement = -g
        saved = movement * clipped[name]
        torch.testing.assert_close(of_clipped[name], path_importance(saved, clipped[name], 0.1), rtol=1e-3, atol=1e-8)
        torch.testing.assert_close(of_whole[name], path_importance(movement**2, movement, 0.1), rtol=1e-3, atol=1e-8)


def test_what_it_keeps_does_not_grow_with_tasks(plain):
    run = plain.run(["si"], epochs=1)
    plain.learn(run, upto=1)
    after_one = run.strategies[0].state_bytes()
    run.position = 1
    run.learn(plain.tasks[1])
    assert run.strategies[0].state_bytes() == after_one
    assert set(run.strategies[0].precision_) == set(run.model.adapters.trainable())


def test_heads_that_are_not_used_are_left_alone(llama, bert):
    assert_unused_heads_stay(make_bench("classify", llama, bert), "si", epochs=1)
