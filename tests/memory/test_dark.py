import pytest
import torch
from torch.nn import functional as F

from everlearn.learners.loader import EncodedMixture
from everlearn.memory.rows import n_rows, rows_of, size
from everlearn.types import Mixture, Outputs, Step
from support.runs import make_bench
from support.tasks import regression_task


def second_task(bench, **options):
    """Return a run before its second task, the strategy, and a step over new rows and stored ones, weights moved."""
    run = bench.run([{"name": "der", **options}], epochs=1)
    bench.learn(run, upto=1)
    run.position, run.current = 1, bench.tasks[1].name
    run.add_labels(bench.tasks[1])
    strategy = run.strategies[0]
    strategy.begin_task(run, bench.tasks[1])
    encoded = EncodedMixture(strategy.train_data(Mixture.of(bench.tasks[1]), run), run.model.objective)
    addresses = [(0, 3), (0, 1), (1, 6), (1, 0), (1, 2)]
    step = Step(run, bench.tasks[1], run.model.adapters.trainable(), batch=encoded.__getitems__(addresses))
    step.rows = encoded.in_batch_order(addresses)
    return run, strategy, step


def answer(run, step):
    step.outputs = run.model.objective.forward(run.model.network, step.batch)
    return step.outputs


def move(run):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in run.model.adapters.trainable().values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize("head", ["task", "shared"])
@pytest.mark.parametrize("kind", ["causal_lora", "causal_full", "classify", "tag", "plain"])
def test_stored_rows_are_held_to_their_logits_and_not_to_their_labels(llama, bert, kind, head):
    bench = make_bench(kind, llama, bert, head=head)
    run, strategy, step = second_task(bench, alpha=0.7, top_k=10**6)
    before = answer(run, step).logits.detach()
    causal, n_own = kind.startswith("causal"), len(bench.tasks[0].labels)
    stored, n = step.items_of({1}), len(step.outputs.targets)
    assert 0 < stored.sum() < n
    ce = F.cross_entropy(step.outputs.logits, step.outputs.targets, reduction="none")
    torch.testing.assert_close(strategy.penalty(step), -ce[stored].sum() / n, rtol=1e-4, atol=1e-5)
    move(run)
    now = answer(run, step).logits
    ce = F.cross_entropy(now, step.outputs.targets, reduction="none")
    # the first task's classes stand first; a plain module has all its outputs from the start
    width = before.shape[1] if causal or (kind, head) == ("plain", "shared") else n_own
    squares = (now[stored, :width] - before[stored, :width]).square().mean(1)
    total = F.cross_entropy(now, step.outputs.targets) + strategy.penalty(step)
    torch.testing.assert_close(total, (ce[~stored].sum() + 0.7 * squares.sum()) / n, rtol=1e-3, atol=1e-4)
    step.weights = torch.linspace(0.1, 1.9, n)
    total = (step.weights * ce).mean() + strategy.penalty(step)
    of_stored = 0.7 * (step.weights[stored] * squares).sum()
    torch.testing.assert_close(total, ((step.weights * ce)[~stored].sum() + of_stored) / n, rtol=1e-3, atol=1e-4)


def test_of_a_large_vocabulary_the_largest_logits_and_the_rest_are_compared(llama, bert):
    run, strategy, step = second_task(make_bench("causal_lora", llama, bert), alpha=1.0, top_k=5)
    before = answer(run, step).logits.detach()
    move(run)
    now = answer(run, step).logits
    stored = step.items_of({1})
    columns = before[stored].topk(5).indices

    def cut(logits):
        rest = logits.scatter(1, columns, -torch.inf).logsumexp(1, keepdim=True)
        return torch.cat([logits.gather(1, columns), rest], 1)

    squares = (cut(now[stored]) - cut(before[stored])).square().mean(1).sum()
    ce = F.cross_entropy(now, step.outputs.targets, reduction="none")[stored].sum()
    wanted = (squares - ce) / len(stored)
    torch.testing.assert_close(strategy.penalty(step), wanted, rtol=1e-3, atol=1e-3)
    assert strategy.answers_["add_0"]["values"].shape[1] == 6


def test_rows_and_their_logits_stay_together_in_a_reservoir_over_tasks(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    run = bench.run([{"name": "der", "capacity": 10, "alpha": 0.0}], epochs=1)
    run.tasks = {task.name: task for task in bench.tasks}
    answered = {}
    for position, task in enumerate([*bench.tasks, bench.tasks[0]]):
        run.position = position
        run.learn(task)
        with torch.no_grad(), run.model.evaluating():
            answered.setdefault(task.name, []).append(run.model.network(task.train.x))
    (strategy,) = run.strategies
    assert size(strategy.memory_) == 10
    assert strategy.n_seen_ == 72
    for name, stored in strategy.memory_.items():
        answers, task = strategy.answers_[name], run.tasks[name]
        assert len(answers["counts"]) == n_rows(stored)
        for x, values in zip(rows_of(stored).x, answers["values"], strict=True):
            row = next(i for i, own in enumerate(task.train.x) if torch.equal(own, x))
            assert any(torch.allclose(values, times[row], atol=1e-5) for times in answered[name])


def test_only_classes_that_there_were_are_compared_when_a_head_grew(llama, bert):
    bench = make_bench("classify", llama, bert, head="shared")
    run, strategy, step = second_task(bench)
    first = strategy.answers_["classify_0"]["values"]
    assert first.shape[1] == 2
    run.learn(bench.tasks[1])
    assert strategy.answers_["classify_0"]["values"].shape[1] == 2
    assert strategy.answers_["classify_1"]["values"].shape[1] == 5
    run.position = 2
    mixture = strategy.train_data(Mixture.of(bench.tasks[1]), run)
    encoded = EncodedMixture(mixture, run.model.objective)
    addresses = [(0, 0), *((1, row) for row in range(0, 24, 3))]
    step = Step(run, bench.tasks[1], {}, batch=encoded.__getitems__(addresses))
    step.rows = encoded.in_batch_order(addresses)
    answer(run, step)
    move(run)
    answer(run, step)
    assert torch.isfinite(strategy.penalty(step))


def test_predictions_of_real_numbers_are_held_too(llama, bert):
    bench = make_bench("plain", llama, bert)
    tasks = (regression_task(0), regression_task(1))
    bench = type(bench)("plain", bench.config, tasks)
    run = bench.learn(bench.run([{"name": "der", "alpha": 2.0}], epochs=1), upto=1)
    strategy = run.strategies[0]
    strategy.train_data(Mixture.of(tasks[1]), run)
    values = strategy.answers_["regression_0"]["values"]
    outputs = Outputs(values[[4]] + 3, tasks[0].train.y[[4]], torch.tensor([0]))
    step = Step(run, tasks[1], {}, rows=[(1, 4)], outputs=outputs)
    loss = 0.5 * (outputs.logits - outputs.targets).square().sum()
    assert (loss + strategy.penalty(step)).item() == pytest.approx(2.0 * 9.0, rel=1e-5)


def test_alpha_holds_the_logits(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")

    def moved(alpha):
        options = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": 20}
        run = bench.run([{"name": "der", "alpha": alpha}], **options)
        bench.learn(run, upto=1)
        x = bench.tasks[0].train.x
        before = run.model.network(x).detach()
        run.position = 1
        run.learn(bench.tasks[1])
        return (run.model.network(x) - before).square().mean().item()

    assert moved(1.0) < 0.5 * moved(0.0)


def test_a_batch_without_stored_rows_is_left_as_it_is(llama, bert):
    bench = make_bench("plain", llama, bert)
    run, strategy, step = second_task(bench)
    answer(run, step)
    step.rows = [(0, row) for row in range(5)]
    assert strategy.penalty(step).item() == 0
