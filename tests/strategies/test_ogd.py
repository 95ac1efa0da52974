import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.models.causal import CausalObjective
from everlearn.strategies import ogd
from everlearn.strategies.ogd import OGD, answers
from everlearn.strategy import Strategy
from everlearn.types import Outputs
from support.runs import Bench, first_task_loss, make_bench
from support.tasks import tensor_task

ADAMW = {"optimizer": "adamw", "weight_decay": 0.1, "learning_rate": 0.01, "clip": None, "epochs": 4}


class Watching(Strategy):
    """Sees the gradient that is left, and where the weights go."""

    def __init__(self, freezes=()):
        self.freezes, self.moves = freezes, []

    def begin_task(self, run, task):
        if run.position == 1 and self.freezes:
            run.model.adapters.do("freeze", parameters=list(self.freezes))

    def edit_grads(self, step):
        self.before = flat(step.params.values())
        self.gradient = flat([p.grad if p.grad is not None else torch.zeros_like(p) for p in step.params.values()])

    def after_step(self, step):
        self.moves.append((self.gradient, flat(step.params.values()) - self.before))


def flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def learn_second(bench, run):
    run.position = 1
    run.learn(bench.tasks[1])
    return run


def outputs(logits, targets, owners):
    return Outputs(torch.tensor(logits), torch.tensor(targets), torch.tensor(owners))


def test_answers_are_means_over_a_rows_targets_of_the_logits_asked_for():
    masked = torch.finfo(torch.float32).min / 4
    found = outputs([[1.0, 2.0, masked], [4.0, 8.0, masked], [5.0, 7.0, masked]], [1, 0, 1], [0, 0, 1])
    torch.testing.assert_close(answers(found, "gtl"), torch.tensor([[1.0], [2.0], [7.0]]))
    torch.testing.assert_close(answers(found, "ave"), torch.tensor([[0.75], [3.0], [6.0]]))
    torch.testing.assert_close(answers(found, "all")[:, :2], torch.tensor([[0.5, 1.0], [2.0, 4.0], [5.0, 7.0]]))
    regression = outputs([[1.0, 2.0], [3.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]], [0, 1])
    torch.testing.assert_close(answers(regression, "gtl"), torch.tensor([[1.5], [4.0]]))
    torch.testing.assert_close(answers(regression, "ave"), answers(regression, "gtl"))


@pytest.mark.parametrize("variant", ["gtl", "ave", "all"])
@pytest.mark.parametrize("kind", ["plain", "classify", "causal_lora"])
def test_gradients_are_of_the_answers_row_by_row(kind, variant, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(epochs=1), upto=1)
    if (kind, variant) == ("causal_lora", "all"):
        assert OGD(variant="all")._n_values(run, bench.tasks[0]) > 100
        return
    task, strategy = bench.tasks[0], OGD(variant=variant, batch_size=5)
    parameters = strategy._parameters(run)
    found = strategy.gradients(run, task, parameters)
    features, wanted = run.model.objective.encode(task.train, task), []
    n_values = strategy._n_values(run, task)
    run.model.network.eval()
    for value in range(n_values):
        for row in range(len(task.train)):
            batch = run.model.objective.collate(run.model.objective.take(features, [row]))
            answer = answers(run.model.objective.forward(run.model.network, batch), variant)[:, value].sum()
            gradients = torch.autograd.grad(answer, list(parameters.values()))
            wanted.append(flat(gradients))
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-6)
    assert len(found) == n_values * len(task.train)


def test_too_many_logits_are_refused(llama, bert, monkeypatch):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.run()
    assert isinstance(run.model.objective, CausalObjective)
    monkeypatch.setattr(ogd, "MAX_LOGITS", 50)
    with pytest.raises(ConfigError, match=r"ogd\.variant: all would take \d+ passes a row.*gtl or ave"):
        OGD(variant="all")._n_values(run, bench.tasks[0])


def test_the_optimizer_steps_along_the_projected_gradient(llama, bert):
    bench, watching = make_bench("plain", llama, bert, head="shared"), Watching()
    options = {"optimizer": "sgd", "learning_rate": 0.5, "clip": None, "epochs": 1}
    run = bench.learn(bench.run([{"name": "ogd", "n_examples": 8}, watching], **options), upto=1)
    lines, n_first = run.strategies[0].basis_["lines"].clone(), len(watching.moves)
    torch.testing.assert_close(lines @ lines.T, torch.eye(8), rtol=0, atol=1e-5)
    learn_second(bench, run)
    for gradient, move in watching.moves[n_first:]:
        assert (lines @ gradient).abs().max() < 1e-6
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close(move, -0.5 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "causal_lora", "causal_full", "classify"])
def test_weights_do_not_move_along_what_is_held_under_adamw_but_would_if_only_gradients_were_projected(
    kind, llama, bert
):
    bench, leaks = make_bench(kind, llama, bert), {}
    for protect in ("update", "gradient"):
        strategy = OGD(protect=protect, n_examples=6)
        run = bench.learn(bench.run([strategy], **ADAMW), upto=1)
        strategy = run.strategies[0]
        parameters, lines = strategy._parameters(run), strategy.basis_["lines"].clone()
        before = flat(parameters.values())
        learn_second(bench, run)
        change = flat(parameters.values()) - before
        leaks[protect] = ((lines @ change).norm() / change.norm()).item()
        assert len(lines) == 6
        assert change.norm() > 1e-3
    assert leaks["update"] < 1e-5
    assert leaks["gradient"] > 0.02


def test_answers_on_earlier_rows_move_less(llama, bert):
    bench, moved = make_bench("plain", llama, bert), {}
    for strategies in ((), ("ogd",)):
        run = bench.learn(bench.run(strategies, **{**ADAMW, "learning_rate": 0.003}), upto=1)
        task = bench.tasks[0]
        features = run.model.objective.encode(task.train, task)
        batch = run.model.objective.collate(run.model.objective.take(features, list(range(len(features)))))
        first = answers(run.model.objective.forward(run.model.network, batch), "gtl")
        learn_second(bench, run)
        moved[strategies] = (answers(run.model.objective.forward(run.model.network, batch), "gtl") - first).norm()
    assert moved[("ogd",)] < 0.2 * moved[()]


def test_tasks_share_the_capacity_alike_and_the_basis_stays_orthonormal(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    tasks = tuple(tensor_task(number) for number in range(4))
    bench = Bench(bench.kind, bench.config, tasks)
    run = bench.run([{"name": "ogd", "capacity": 14}], epochs=1)
    strategy, first = run.strategies[0], None
    for position, counts in enumerate(([14], [7, 7], [4, 5, 5], [3, 4, 3, 4])):
        run.position = position
        run.learn(tasks[position])
        lines = strategy.basis_["lines"]
        first = lines if first is None else first
        assert strategy.counts_ == counts
        torch.testing.assert_close(lines @ lines.T, torch.eye(14), rtol=0, atol=1e-5)
        assert torch.equal(lines[: counts[0]], first[: counts[0]])  # each task keeps what carries most


def test_classes_that_come_later_widen_the_basis(llama, bert):
    bench = make_bench("classify", llama, bert, head="shared")
    run = bench.learn(bench.run([{"name": "ogd", "n_examples": 5}], epochs=1), upto=1)
    strategy = run.strategies[0]
    n_before, before = sum(strategy.sizes_.values()), dict(strategy.sizes_)
    learn_second(bench, run)
    assert {name: strategy.sizes_[name] for name in before} == before
    assert strategy.basis_["lines"].shape == (10, sum(strategy.sizes_.values()))
    assert sum(strategy.sizes_.values()) > n_before
    lines = strategy.basis_["lines"]
    torch.testing.assert_close(lines @ lines.T, torch.eye(10), rtol=0, atol=1e-5)


def test_heads_of_single_tasks_are_left_out(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run(["ogd"], epochs=1))
    assert not [name for name in run.strategies[0].sizes_ if "blocks" in name]


def test_what_is_left_is_held_where_others_freeze_a_part(llama, bert):
    bench, watching = make_bench("plain", llama, bert, head="shared"), Watching(freezes=["1.weight"])
    run = bench.learn(bench.run([{"name": "ogd", "n_examples": 8}, watching], **ADAMW), upto=1)
    strategy, n_first = run.strategies[0], len(watching.moves)
    n_frozen, lines = strategy.sizes_["1.weight"], strategy.basis_["lines"].clone()
    learn_second(bench, run)
    for _, move in watching.moves[n_first:]:
        assert (lines[:, n_frozen:] @ move).abs().max() < 1e-6
        assert move.norm() > 1e-3
    assert next(iter(strategy.sizes_)) == "1.weight"
    both = strategy.basis_["lines"]
    torch.testing.assert_close(both @ both.T, torch.eye(len(both)), rtol=0, atol=1e-5)


def test_what_it_keeps_is_bounded(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.learn(bench.run([{"name": "ogd", "capacity": 3}], epochs=1))
    n_weights = sum(p.numel() for p in run.model.adapters.trainable().values())
    assert 4 * 3 * n_weights <= run.strategies[0].state_bytes() < 4 * 3 * n_weights + 200


def test_it_forgets_less_than_plain_training(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    options = {"optimizer": "sgd", "learning_rate": 0.3, "epochs": 20}
    assert first_task_loss(bench, ["ogd"], **options) < first_task_loss(bench, [], **options)
