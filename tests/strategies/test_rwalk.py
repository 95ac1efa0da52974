import pytest
import torch

from everlearn.functional.fisher import sum_of_squared_gradients
from everlearn.learners.loader import row_batches
from everlearn.strategies.rwalk import scaled_to_one, walk_score
from reference import regularisation
from support.runs import assert_same, make_bench, start_lora_away_from_zero, weights
from support.tasks import prompt_task


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert)


def test_the_score_is_loss_saved_per_nat_moved():
    saved, fisher, moved = torch.tensor([2.0, -1.0, 2.0]), torch.tensor([4.0, 4.0, 0.0]), torch.tensor([0.5, 0.5, 9.0])
    torch.testing.assert_close(walk_score(saved, fisher, moved, 0.5), torch.tensor([2.0, 0.0, 4.0]))


def test_scaling_is_by_one_number_for_all_weights():
    found = scaled_to_one({"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([2.0])})
    assert torch.equal(found["a"], torch.tensor([0.25, 1.0]))
    assert found["b"].item() == 0.5
    assert scaled_to_one({"a": torch.zeros(2)})["a"].isfinite().all()


@pytest.mark.parametrize("accumulation", [1, 4])
def test_it_equals_the_reference(plain, accumulation):
    settings = {"strength": 5.0, "alpha": 0.3, "interval": 4, "damping": 0.01}  # 6 steps: an interval and a half
    options = {"optimizer": "sgd", "clip": None, "learning_rate": 0.1, "epochs": 1}
    run = plain.run(
        [{"name": "rwalk", **settings}], batch_size=4 // accumulation, accumulation=accumulation, **options
    )  # fmt: skip
    begin = weights(run)
    plain.learn(run)
    how = {"seed": 0, "batch_size": 4, "learning_rate": 0.1}
    wanted, precision = regularisation.rwalk(begin, plain.tasks, **settings, **how)
    assert_same(weights(run), wanted, tolerance=1e-5)
    assert_same(run.strategies[0].precision_, precision, tolerance=1e-4)
    loose, _ = regularisation.rwalk(begin, plain.tasks, **{**settings, "strength": 0.0}, **how)
    assert max((wanted[name] - loose[name]).abs().max() for name in wanted) > 1e-3  # far above the tolerance


def test_of_a_single_sequence_the_fisher_is_that_of_its_summed_log_likelihood(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    task = prompt_task(3, n_train=1)
    run = bench.run(["rwalk"], epochs=1)
    model = run.model
    start_lora_away_from_zero(run)
    (batch,) = (batch for _, batch in row_batches(model.objective, task.train, task, 1))
    assert model.objective.n_items(batch) > 1
    with model.evaluating():
        wanted, _ = sum_of_squared_gradients(
            model.network, model.adapters.trainable(), [batch],
            lambda batch: model.objective.forward(model.network, batch), "empirical",
        )  # fmt: skip
    run.learn(task)
    for name, value in wanted.items():
        torch.testing.assert_close(run.strategies[0].fisher_[name], value, rtol=1e-3, atol=1e-7)


def test_what_it_keeps_does_not_grow_with_tasks(plain):
    run = plain.run(["rwalk"], epochs=1)
    plain.learn(run, upto=1)
    after_one = run.strategies[0].state_bytes()
    run.position = 1
    run.learn(plain.tasks[1])
    assert run.strategies[0].state_bytes() == after_one


def test_heads_that_are_not_used_are_left_alone(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run(["rwalk"], epochs=1), upto=1)
    before = run.model.adapters.trainable().items()
    head = {name: p.detach().clone() for name, p in before if "blocks.0" in name}
    fisher = {name: run.strategies[0].fisher_[name].clone() for name in head}
    assert head
    run.position = 1
    run.learn(bench.tasks[1])
    now = run.model.adapters.trainable()
    assert all(torch.equal(now[name], tensor) for name, tensor in head.items())
    assert all(torch.equal(run.strategies[0].fisher_[name], tensor) for name, tensor in fisher.items())
