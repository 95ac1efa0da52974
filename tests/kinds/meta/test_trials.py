import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from everlearn.kinds.meta.recipe import MetaEvaluation
from everlearn.kinds.meta.trials import INNER_LOOP, best_rule, mean_target_loss, try_start, tuned
from everlearn.learners.meta.learner import MetaLearner
from everlearn.models.plain import mlp
from everlearn.types import TensorRows
from support.runs import assert_same
from support.tasks import prompt_task, regression_task

TASK = regression_task(0)
RULES = MetaEvaluation(steps=[0, 2], n_rows=6, rates={"sgd": [1e-6, 0.1, 1e30], "adamw": [1e-6]})


@pytest.fixture
def learner():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MetaLearner(mlp(4, 1, (8,)), 0.05, options={"n_support": 4})
    made.prepare([TASK])
    return made


def weights_of(learner):
    return {name: p.detach().clone() for name, p in learner.model.adapters.trainable().items()}


def test_tuning_takes_the_optimizers_steps_and_gives_the_weights_back(learner):
    before, by_hand = weights_of(learner), mlp(4, 1, (8,))
    by_hand.load_state_dict(learner.model.network.state_dict())
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.01, weight_decay=0.0)
    for batch in learner.support_of(TASK, 3, 6):
        assert len(batch["x"]) == 4
        optimizer.zero_grad()
        (0.5 * F.mse_loss(by_hand(batch["x"]), batch["y"])).backward()
        optimizer.step()
    with tuned(learner, TASK, 3, 6, 0, "adamw", 0.01):
        assert_same(weights_of(learner), {n: p.detach() for n, p in by_hand.named_parameters()})
    assert_same(weights_of(learner), before)
    assert all(p.grad is None for p in learner.model.network.parameters())


def test_sgd_steps_are_those_of_the_inner_loop(learner):
    with tuned(learner, TASK, 3, None, 0, "sgd", 0.05):
        ordinary = weights_of(learner)
    with learner.adapted(TASK, 3):
        assert_same(weights_of(learner), ordinary, 1e-6)


def test_the_best_rule_is_chosen_and_one_that_blows_up_is_not(learner):
    assert best_rule(learner, TASK, "plain", RULES) == {"optimizer": "sgd", "rate": 0.1}
    with tuned(learner, TASK, 2, None, 0, "sgd", 1e30) as model:
        assert not math.isfinite(mean_target_loss(model, TASK, TASK.evaluation, learner.device, 4))


def test_the_loss_weighs_targets_alike_at_any_batch_size(llama):
    task = prompt_task(0)
    learner = MetaLearner({"name": str(llama), "adapter": {"rank": 2}})
    learner.prepare([task])
    whole, single = (mean_target_loss(learner.model, task, task.evaluation, learner.device, size) for size in (4, 1))
    assert whole == pytest.approx(single, rel=1e-5)


def test_each_start_is_scored_after_each_number_of_steps(learner):
    plain, meta = (try_start(learner, TASK, start, RULES) for start in ("plain", "meta"))
    for name, lines in (("plain", plain), ("meta", meta)):
        assert [(line["start"], line["steps"], line["rate"]) for line in lines] == [(name, 0, 0.1), (name, 2, 0.1)]
    assert plain[0]["outcomes"] == meta[0]["outcomes"]
    assert plain[1]["value"] > plain[0]["value"]


def test_the_learned_start_may_take_the_steps_of_its_own_inner_loop(learner):
    slow = replace(RULES, rates={"sgd": [1e-6]})
    plain, meta = (try_start(learner, TASK, start, slow)[-1] for start in ("plain", "meta"))
    assert (plain["optimizer"], meta["optimizer"], meta["rate"]) == ("sgd", INNER_LOOP, 0.05)
    assert meta["value"] == learner.score(TASK, 2, n_rows=6).value > plain["value"]


def test_each_draw_takes_other_rows_and_all_take_one_rule(learner):
    lines = try_start(learner, TASK, "plain", replace(RULES, n_draws=2))
    assert [(line["draw"], line["steps"]) for line in lines] == [(0, 0), (0, 2), (1, 0), (1, 2)]
    assert lines[0]["outcomes"] == lines[2]["outcomes"]
    assert lines[1]["outcomes"] != lines[3]["outcomes"]
    assert {line["rate"] for line in lines} == {0.1}
    with tuned(learner, TASK, 2, 6, 1, "sgd", 0.1) as model:
        assert lines[3]["loss"] == mean_target_loss(model, TASK, TASK.evaluation, learner.device, 64)


def test_the_rule_is_chosen_on_validation_rows_where_there_are_any(learner):
    rows_alike = replace(TASK, validation=TASK.evaluation)
    upside_down = replace(TASK, validation=TensorRows(TASK.evaluation.x, -1000 * TASK.evaluation.y))
    rules = replace(RULES, rates={"sgd": [1e-6, 0.1]})
    assert best_rule(learner, rows_alike, "plain", rules)["rate"] == 0.1
    assert best_rule(learner, upside_down, "plain", rules)["rate"] == 1e-6
