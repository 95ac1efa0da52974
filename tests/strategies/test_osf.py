import pytest
import torch

from everlearn.functional.subspace import top_directions
from everlearn.strategies.osf import OSF
from everlearn.strategy import Strategy
from support.runs import assert_same, make_bench, weights

ADAMW = {"optimizer": "adamw", "weight_decay": 0.1, "learning_rate": 0.01, "clip": None, "epochs": 4}


class OnlyGradients(OSF):
    """What peft does: gradients are projected, and the optimizer steps as it likes."""

    def after_step(self, step):
        pass


class Watching(Strategy):
    """Sees what is held, the gradients that are left, and where the weights go."""

    def __init__(self, osf):
        self.osf, self.seen = osf, []

    def edit_grads(self, step):
        self.before = {name: p.detach().clone() for name, p in step.params.items()}
        self.gradients = {name: None if p.grad is None else p.grad.clone() for name, p in step.params.items()}

    def after_step(self, step):
        change = {name: p.detach() - self.before[name] for name, p in step.params.items()}
        self.seen.append((dict(self.osf.directions_), self.gradients, change))


def learn_second(bench, run):
    run.position = 1
    run.learn(bench.tasks[1])
    return run


def leak(before, after, left, right):
    """Return the share of a matrix's change that acts on what is held, on the two sides."""
    change = after - before
    return ((left.T @ change).norm() / change.norm()).item(), ((change @ right).norm() / change.norm()).item()


@pytest.mark.parametrize("kind", ["plain", "causal_full"])
def test_the_top_of_each_matrix_stays_under_adamw_but_leaks_if_only_gradients_are_projected(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    leaks = {}
    for strategy in (OSF(kept=0.5), OnlyGradients(kept=0.5)):
        run = bench.run([strategy], **ADAMW)
        watching = Watching(run.strategies[0])
        run.strategies.append(watching)
        before = weights(run)
        bench.learn(run, upto=1)
        after, (held, *_) = weights(run), watching.seen[0]
        leaks[type(strategy)] = [leak(before[name], after[name], d["left"], d["right"]) for name, d in held.items()]
        if type(strategy) is OSF:
            for name, d in held.items():
                n_kept = round(0.5 * min(before[name].shape))
                left, right = top_directions(before[name], n_kept)
                torch.testing.assert_close(left.T @ after[name], left.T @ before[name], rtol=0, atol=1e-5)
                torch.testing.assert_close(after[name] @ right, before[name] @ right, rtol=0, atol=1e-5)
                assert d["left"].shape[1] == d["right"].shape[1] == n_kept
    assert len(leaks[OSF]) == (1 if kind == "plain" else 14)  # lm_head is the embedding
    assert max(max(both) for both in leaks[OSF]) < 1e-4
    assert min(max(both) for both in leaks[OnlyGradients]) > 0.05


def test_the_optimizer_steps_along_the_projected_gradient(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run([OSF(kept=0.5)], optimizer="sgd", learning_rate=0.5, clip=None, epochs=1)
    watching = Watching(run.strategies[0])
    run.strategies.append(watching)
    bench.learn(run)
    for held, gradients, change in watching.seen:
        for name, d in held.items():
            torch.testing.assert_close(change[name], -0.5 * gradients[name], rtol=1e-4, atol=1e-6)
            assert (d["left"].T @ gradients[name]).abs().max() < 1e-6
            assert (gradients[name] @ d["right"]).abs().max() < 1e-6
            assert gradients[name].abs().max() > 1e-4


def test_each_task_holds_the_top_of_what_the_matrices_are_when_it_begins(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run([{"name": "osf", "kept": 0.34}], epochs=1)
    watching = Watching(run.strategies[0])
    run.strategies.append(watching)
    bench.learn(run, upto=1)
    weight = weights(run)["1.weight"]
    learn_second(bench, run)
    first, second = watching.seen[0][0]["1.weight"], watching.seen[-1][0]["1.weight"]
    left, right = top_directions(weight, 2)
    torch.testing.assert_close(second, {"left": left, "right": right})
    assert not torch.allclose(first["left"], second["left"])
    assert run.strategies[0].directions_ == {}


def test_the_first_task_is_learned_as_without_it_where_there_is_nothing_to_hold(llama, bert):
    bench = make_bench("plain", llama, bert)
    plain = weights(bench.learn(bench.run(), upto=1))
    assert_same(plain, weights(bench.learn(bench.run([{"name": "osf", "from_start": False}]), upto=1)))
    held = weights(bench.learn(bench.run(["osf"]), upto=1))
    assert not torch.equal(plain["1.weight"], held["1.weight"])


@pytest.mark.parametrize("others", ["frozen", "free"])
def test_other_parameters_are_frozen_or_left_and_the_classes_of_a_plain_module_are_free(others, llama, bert):
    for kind in ("causal_full", "plain"):
        bench = make_bench(kind, llama, bert)
        run = bench.run([{"name": "osf", "others": others}], **ADAMW)
        before = weights(run)
        bench.learn(run, upto=1)
        moved = {name for name, tensor in weights(run).items() if not torch.equal(tensor, before[name])}
        trainable = set(run.model.adapters.trainable())
        rest = {"1.bias"} if kind == "plain" else {name for name in trainable if "norm" in name or "embed" in name}
        assert rest
        assert moved == (trainable - rest if others == "frozen" else trainable)


def test_all_kept_leaves_the_matrices_where_they_are(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run([{"name": "osf", "kept": 1.0}], **ADAMW)
    before = weights(run)["1.weight"]
    bench.learn(run)
    torch.testing.assert_close(weights(run)["1.weight"], before, rtol=0, atol=1e-5)
