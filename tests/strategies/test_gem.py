from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from everlearn.functional.projection import project_against_all
from everlearn.learners.grouped import grouped_gradients
from everlearn.memory.rows import n_rows, rows_of
from everlearn.strategies import gem
from everlearn.strategy import Strategy
from support.runs import Bench, assert_same, assert_unused_heads_stay, first_task_loss, make_bench, weights
from support.tasks import tensor_task


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors]).double()


@pytest.fixture
def four_tasks(llama, bert):
    """Four tasks of the same labels."""
    bench = make_bench("plain", llama, bert, head="shared")
    return Bench(bench.kind, bench.config, tuple(tensor_task(number) for number in range(4)))


def test_the_optimizer_steps_along_a_gradient_that_points_against_no_memory(four_tasks, monkeypatch):
    n_references, cosines, moves = [], [], []

    def watched(gradients, references, margin):
        before = F.cosine_similarity(flat(gradients)[None], references.double())
        lines = references.clone()
        changed = project_against_all(gradients, references, margin)
        after = F.cosine_similarity(flat(gradients)[None], lines.double())
        n_references.append(len(lines))
        cosines.append((before.min().item(), after.min().item(), changed))
        return changed

    class Watching(Strategy):
        """Sees the gradient that is left, and where the weights go."""

        def edit_grads(self, step):
            self.params = [p for p in step.params.values() if p.grad is not None]
            self.gradient, self.before = flat([p.grad for p in self.params]), flat([p.detach() for p in self.params])

        def after_step(self, step):
            moves.append((flat([p.detach() for p in self.params]) - self.before, self.gradient))

    monkeypatch.setattr(gem, "project_against_all", watched)
    options = {"optimizer": "sgd", "learning_rate": 0.5, "clip": None}
    four_tasks.learn(four_tasks.run([{"name": "gem", "protect": "gradient"}, Watching()], **options))
    assert n_references == sorted(n_references)
    assert set(n_references) == {1, 2, 3}
    assert sum(changed for *_, changed in cosines) > 5
    assert all(after >= -1e-6 for _, after, _ in cosines)
    assert all(changed == (before < 0) for before, _, changed in cosines)
    for move, gradient in moves:
        torch.testing.assert_close(move, -0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_with_one_earlier_task_it_equals_a_gem(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    options = {"optimizer": "sgd", "learning_rate": 0.3, "epochs": 4}
    memory = {"capacity": 24, "batch_size": 24}  # all rows, so that both see the same
    learned = [weights(bench.learn(bench.run([{"name": name, **memory}], **options))) for name in ("gem", "agem")]
    assert_same(*learned, tolerance=1e-5)
    assert any(not torch.equal(learned[0][key], tensor) for key, tensor in weights(bench.learn(bench.run())).items())


def test_each_earlier_task_keeps_an_equal_share_of_the_rows(four_tasks):
    run = four_tasks.run([{"name": "gem", "capacity": 14}], epochs=1)
    strategy = run.strategies[0]
    for position, sizes in enumerate(([14], [7, 7], [4, 5, 5], [3, 4, 3, 4])):
        run.position = position
        run.learn(four_tasks.tasks[position])
        assert [len(rows_of(stored)) for stored in strategy.memory_.values()] == sizes


def test_the_first_task_is_learned_as_without_it(four_tasks):
    plain = weights(four_tasks.learn(four_tasks.run(), upto=1))
    assert_same(plain, weights(four_tasks.learn(four_tasks.run(["gem"]), upto=1)))


def test_each_step_draws_its_own_rows_of_every_task(four_tasks, monkeypatch):
    drawn = []

    def watched(run, parameters, batch, groups, n_groups, score):
        drawn.append((groups, batch["x"].sum().item()))
        return grouped_gradients(run, parameters, batch, groups, n_groups, score)

    monkeypatch.setattr(gem, "grouped_gradients", watched)
    four_tasks.learn(four_tasks.run([{"name": "gem", "capacity": 20, "batch_size": 3}], epochs=1), upto=3)
    assert [groups for groups, _ in drawn] == [[0] * 3] * 6 + [[0] * 3 + [1] * 3] * 6
    assert len({total for _, total in drawn}) == 12


def test_heads_that_are_not_used_are_left_alone(llama, bert):
    assert_unused_heads_stay(make_bench("classify", llama, bert), "gem", epochs=1)


def test_a_task_that_comes_again_is_held_against_its_rows_of_before(four_tasks):
    run = four_tasks.run([{"name": "gem", "capacity": 12}], epochs=1)
    strategy = run.strategies[0]
    for position, number in enumerate((0, 1, 0)):
        run.position = position
        run.learn(four_tasks.tasks[number])
        assert len(strategy._encode(run).sizes) == position
    first, second = (four_tasks.tasks[number].name for number in (0, 1))
    assert {name: n_rows(stored) for name, stored in strategy.memory_.items()} == {first: 6, second: 6}
    assert strategy.n_seen_[first] == 2 * len(four_tasks.tasks[0].train)


def places_kept_of_four_stretches(bench, capacity, seed):
    """Return which rows of a task GEM keeps that saw it in four stretches."""
    run, task = bench.run([{"name": "gem", "capacity": capacity}]), bench.tasks[0]
    run.seed, n = seed, len(task.train) // 4
    for run.position in range(4):
        stretch = task.train[run.position * n : (run.position + 1) * n]
        run.strategies[0].end_task(run, replace(task, train=stretch))
    kept = rows_of(run.strategies[0].memory_[task.name])
    return [next(i for i, x in enumerate(task.train.x) if torch.equal(x, row)) for row in kept.x]


def test_the_memory_of_one_stream_holds_rows_of_all_its_stretches_alike(four_tasks):
    n = len(four_tasks.tasks[0].train)
    assert sorted(places_kept_of_four_stretches(four_tasks, n, 0)) == list(range(n))
    places = [place for seed in range(40) for place in places_kept_of_four_stretches(four_tasks, n // 2, seed)]
    by_stretch = [sum(place // (n // 4) == stretch for place in places) for stretch in range(4)]
    assert len(places) == 40 * (n // 2)
    assert all(abs(found / len(places) - 0.25) < 0.05 for found in by_stretch)


def test_it_forgets_less_than_plain_training(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    options = {"optimizer": "sgd", "learning_rate": 0.3, "epochs": 20}
    sets = ([], ["gem"], [{"name": "gem", "margin": 0.3}])
    plain, held, pulled = (first_task_loss(bench, strategies, **options) for strategies in sets)
    assert pulled < held < plain
