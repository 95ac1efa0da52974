import pytest
import torch

from everlearn.learners.loader import row_batches
from everlearn.strategy import Strategy
from support.runs import Bench, make_bench, weights
from support.tasks import tensor_task

ADAMW = {"optimizer": "adamw", "weight_decay": 0.1, "learning_rate": 0.01, "clip": None, "epochs": 4}


class Watching(Strategy):
    """Sees the gradients that are left, and where the weights go."""

    def __init__(self):
        self.moves = []

    def edit_grads(self, step):
        self.before = {name: p.detach().clone() for name, p in step.params.items()}
        self.gradients = {name: None if p.grad is None else p.grad.clone() for name, p in step.params.items()}

    def after_step(self, step):
        change = {name: p.detach() - self.before[name] for name, p in step.params.items()}
        self.moves.append((self.gradients, change))


def few_rows(llama, bert, head="task"):
    """Two tasks of four rows with six inputs each, so that the first leaves room."""
    bench = make_bench("plain", llama, bert, head=head)
    return Bench(bench.kind, bench.config, tuple(tensor_task(number, n_train=4) for number in range(2)))


def logits_on_training_rows(run, task):
    run.model.adapters.network.eval()
    with torch.no_grad():
        batches = row_batches(run.model.objective, task.train, task, 4)
        return torch.cat([run.model.objective.forward(run.model.network, batch).logits for _, batch in batches])


def learn_second(bench, run):
    run.position = 1
    run.learn(bench.tasks[1])
    return run


def test_the_optimizer_steps_along_the_gradient_without_its_protected_part(llama, bert):
    bench, watching = few_rows(llama, bert, head="shared"), Watching()
    options = {"optimizer": "sgd", "learning_rate": 0.5, "clip": None, "epochs": 1}
    run = bench.learn(bench.run(["gpm", watching], **options), upto=1)
    bases = {name: basis.clone() for name, basis in run.strategies[0].bases_.items()}
    *_, output = bases
    n_first = len(watching.moves)
    learn_second(bench, run)
    for gradients, change in watching.moves[n_first:]:
        for name, basis in bases.items():
            torch.testing.assert_close(change[name], -0.5 * gradients[name], rtol=1e-4, atol=1e-6)
            if name != output:  # there, rows for new classes are free
                assert (gradients[name] @ basis).abs().max() < 1e-6


@pytest.mark.parametrize("momentum", [{"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1}, ADAMW])
def test_weights_do_not_move_along_protected_inputs_but_would_if_only_gradients_were_projected(momentum, llama, bert):
    bench, leaks = make_bench("plain", llama, bert, head="shared"), {}
    for protect in ("update", "gradient"):
        strategy = {"name": "gpm", "protect": protect, "threshold": 0.6}
        run = bench.learn(bench.run([strategy], **{**ADAMW, **momentum}), upto=1)
        before, bases = weights(run), dict(run.strategies[0].bases_)
        learn_second(bench, run)
        name = next(iter(bases))
        change = weights(run)[name] - before[name]
        leaks[protect] = ((change @ bases[name]).norm() / change.norm()).item()
        assert 0 < bases[name].shape[1] < 6
        assert change.norm() > 1e-3
    assert leaks["update"] < 1e-5
    assert leaks["gradient"] > 0.05


@pytest.mark.parametrize("kind", ["causal_lora", "causal_full", "classify", "plain"])
def test_with_all_inputs_protected_earlier_answers_stay(kind, llama, bert):
    bench = few_rows(llama, bert) if kind == "plain" else make_bench(kind, llama, bert)
    moved = {}
    for strategies in ((), ({"name": "gpm", "threshold": 1.0},)):
        run = bench.learn(bench.run(strategies, **ADAMW), upto=1)
        before = logits_on_training_rows(run, bench.tasks[0])
        learn_second(bench, run)
        after = logits_on_training_rows(run, bench.tasks[0])
        usable = before > -1e30
        moved[len(strategies)] = (after - before)[usable].abs().max().item()
    assert moved[1] < 2e-3 * moved[0]


def test_rows_for_new_classes_learn_freely_and_those_of_before_do_not_act_on_old_inputs(llama, bert):
    bench = few_rows(llama, bert)
    run = bench.learn(bench.run([{"name": "gpm", "threshold": 1.0}], **ADAMW), upto=1)
    before = weights(run)
    bases = dict(run.strategies[0].bases_)
    learn_second(bench, run)
    weight, bias = (name for name in before if weights(run)[name].shape[0] == 4)
    change = {name: weights(run)[name] - before[name] for name in (weight, bias)}
    assert (change[weight][:2] @ bases[weight]).abs().max() < 1e-6
    assert (change[weight][2:] @ bases[weight]).abs().max() > 1e-3
    assert not change[bias][:2].any()
    assert change[bias][2:].all()


@pytest.mark.parametrize("others", ["frozen", "free"])
def test_other_parameters_are_frozen_after_the_first_task_or_left(others, llama, bert):
    bench = make_bench("causal_full", llama, bert)
    run = bench.run([{"name": "gpm", "others": others}], **ADAMW)
    start = weights(run)
    bench.learn(run, upto=1)
    before = weights(run)
    learn_second(bench, run)
    after, linear = weights(run), set(run.strategies[0].bases_)
    rest = [name for name in run.model.adapters.trainable() if name not in linear]
    assert any("norm" in name for name in rest)
    assert any("embed" in name for name in rest)
    assert all(not torch.equal(start[name], before[name]) for name in rest)
    assert all(torch.equal(before[name], after[name]) is (others == "frozen") for name in rest)


def test_heads_of_single_tasks_are_neither_held_nor_looked_at(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run(["gpm"], epochs=1))
    strategy = run.strategies[0]
    assert not [name for name in [*strategy.bases_, *strategy.frozen_] if "blocks" in name]
    shared = make_bench("classify", llama, bert, head="shared")
    run = shared.learn(shared.run(["gpm"], epochs=1))
    assert len([name for name in run.strategies[0].bases_ if "blocks" in name]) == 2


def test_what_it_keeps_is_bounded_and_grows_with_the_threshold(llama, bert):
    bench = make_bench("plain", llama, bert)
    sizes = []
    for options in ({"threshold": 0.5}, {"threshold": 0.5, "growth": 0.4}, {"threshold": 1.0}):
        run = bench.learn(bench.run([{"name": "gpm", **options}], epochs=1))
        sizes.append([basis.shape[1] for basis in run.strategies[0].bases_.values()])
        for basis in run.strategies[0].bases_.values():
            torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), rtol=0, atol=1e-5)
            assert basis.shape[1] <= basis.shape[0]
    assert sizes[0][0] < sizes[1][0] <= sizes[2][0] == 6
