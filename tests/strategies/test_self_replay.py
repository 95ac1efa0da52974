import pytest
import torch
from torch.nn import functional as F

from everlearn.memory.own_texts import divergences_on, rows_of_texts, write_own_texts
from everlearn.strategies.self_replay import TASK, SelfReplay
from everlearn.types import Mixture, Step
from support.runs import learn_at, make_bench, weights

SMALL = {"n_texts": 5, "max_tokens": 6, "top_k": 10**6}


@pytest.fixture
def bench(llama, bert):
    return make_bench("contrary_lora", llama, bert)


def test_a_batchs_loss_is_the_mean_of_new_rows_and_of_divergences_from_the_base(bench):
    run = bench.run([{"name": "self_replay", "strength": 3.0, "ratio": 1.0, **SMALL}])
    task, (strategy,), objective = bench.tasks[0], run.strategies, run.model.objective
    strategy.begin_task(run, task)
    groups = strategy.train_data(Mixture.of(task), run).groups
    assert (groups[1].ratio, groups[1].by_row, groups[1].parts[0].rows) == (1.0, True, rows_of_texts(strategy.texts_))
    rows = [objective.encode(task.train, task)[i] for i in (4, 7)]
    own = [objective.encode(groups[1].parts[0].rows, TASK)[i] for i in (3, 0)]
    batch = objective.collate([*rows, *own])
    with torch.no_grad():
        base = objective.forward(run.model.network, objective.collate(own)).logits.log_softmax(-1)
        for p in run.model.adapters.trainable().values():
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
        outputs = objective.forward(run.model.network, batch)
        step = Step(run, task, run.model.adapters.trainable(), batch=batch, rows=[(0, 4), (0, 7), (1, 3), (1, 0)])
        step.outputs = outputs
        of_new = torch.bincount(outputs.owners)[outputs.owners]
        step.weights = len(outputs.owners) / 4 / of_new  # each row weighs alike
        losses = F.cross_entropy(outputs.logits, outputs.targets, reduction="none")
        total = (step.weights * losses).mean() + strategy.penalty(step)
        kl = F.kl_div(outputs.logits[outputs.owners >= 2].log_softmax(-1), base, reduction="none", log_target=True).sum(
            1
        )
        owners = outputs.owners
        means = [losses[owners == row].mean() for row in (0, 1)] + [
            3 * kl[owners[owners >= 2] == r].mean() for r in (2, 3)
        ]
    torch.testing.assert_close(total, torch.stack(means).mean(), rtol=1e-4, atol=1e-5)


def test_it_keeps_what_the_base_says_beside_what_is_learned(bench):
    found = {}
    for name, strategies in (("plain", []), ("held", [SelfReplay(n_texts=16, max_tokens=6, strength=20.0)])):
        run = bench.run(strategies, epochs=6)
        texts, answers = write_own_texts(run, n_texts=16, max_tokens=6, top_k=64, batch_size=8, purpose=("other",))
        bench.learn(run)
        sums = divergences_on(run, texts, answers, 8)
        found[name] = sum(total for total, _ in sums) / sum(n for _, n in sums), run.score(bench.tasks[1]).value
    assert found["held"][0] < 0.7 * found["plain"][0]
    assert found["held"][1] > 0


def test_the_texts_are_written_once_by_the_base_and_differ_with_the_seed(bench):
    run = bench.run([{"name": "self_replay", **SMALL}], epochs=1)
    bench.learn(run, upto=1)
    first = rows_of_texts(run.strategies[0].texts_)
    learn_at(run, bench.tasks[1], 1)
    assert rows_of_texts(run.strategies[0].texts_) == first
    late = bench.run(epochs=1)
    bench.learn(late, upto=1)
    late.strategies.append(SelfReplay(**SMALL))
    late.strategies[0].begin_task(late, bench.tasks[1])
    assert rows_of_texts(late.strategies[0].texts_) == first  # a LoRA is left out, whatever it has learned
    other = bench.run([{"name": "self_replay", **SMALL}], epochs=1, seed=1)
    other.strategies[0].begin_task(other, bench.tasks[0])
    assert rows_of_texts(other.strategies[0].texts_) != first


def test_fewer_texts_are_the_first_ones(bench):
    run = bench.run([{"name": "self_replay", **SMALL}], epochs=1)
    bench.learn(run, upto=1)
    later = bench.run([{"name": "self_replay", **SMALL, "n_texts": 2}], epochs=1)
    later.load_state(run.state())
    later.strategies[0].begin_task(later, bench.tasks[1])
    kept = later.strategies[0]
    assert rows_of_texts(kept.texts_) == rows_of_texts(run.strategies[0].texts_)[:2]
    assert len(kept.answers_[TASK.name]["counts"]) == 2
    assert kept.state_bytes() < run.strategies[0].state_bytes()


def test_where_the_base_is_gone_the_user_is_told(llama, bert):
    bench = make_bench("contrary_full", llama, bert)
    run = bench.run(epochs=1)
    bench.learn(run, upto=1)
    run.strategies.append(SelfReplay(**SMALL))
    with pytest.warns(UserWarning, match="self_replay: all weights are trained and some tasks were learned"):
        run.strategies[0].begin_task(run, bench.tasks[1])


def test_texts_count_alike_whatever_their_length(bench):
    """With packing, and with batches that hold no text, the loop goes on; weights differ from plain training's."""
    plain = weights(bench.learn(bench.run(epochs=1), upto=1))
    for options in ({"packing": True}, {"batch_size": 1}):
        held = bench.run([{"name": "self_replay", **SMALL, "ratio": 0.3}], epochs=1, **options)
        found = weights(bench.learn(held, upto=1))
        assert all(torch.isfinite(tensor).all() for tensor in found.values())
        assert any(not torch.equal(found[name], plain[name]) for name in plain)
