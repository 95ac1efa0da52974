import pytest
import torch

from everlearn.learners.grouped import grouped_gradients
from everlearn.learners.loader import EncodedMixture
from everlearn.models.objectives import item_losses
from everlearn.types import Examples, Group, Mixture
from support.runs import KINDS, make_bench

ADDRESSES = [(0, 3), (0, 0), (0, 5), (2, 1), (2, 4)]  # group 1 has no row here
GROUPS = [group for group, _ in ADDRESSES]


def encoded(run, bench):
    """Return the rows of three groups: the first and second task's, and the first's again."""
    tasks = (*bench.tasks, bench.tasks[0])
    groups = tuple(Group((Examples(task, task.train),)) for task in tasks)
    return EncodedMixture(Mixture(groups), run.model.objective)


def slow(run, parameters, rows, addresses):
    """Return the gradient of the summed loss of some rows, one row after another."""
    total = torch.zeros(sum(p.numel() for p in parameters.values()))
    for address in addresses:
        outputs = run.model.objective.forward(run.model.network, rows.__getitems__([address]))
        found = torch.autograd.grad(item_losses(outputs).sum(), list(parameters.values()), allow_unused=True)
        pairs = zip(parameters.values(), found, strict=True)
        total += torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for p, g in pairs])
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_lines_are_the_gradients_of_the_groups(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(epochs=1))
    parameters, rows = run.model.adapters.trainable(), encoded(run, bench)
    run.model.network.eval()
    lines = grouped_gradients(run, parameters, rows.__getitems__(ADDRESSES), GROUPS, 3, item_losses)
    for group, line in enumerate(lines):
        wanted = slow(run, parameters, rows, [address for address in ADDRESSES if address[0] == group])
        torch.testing.assert_close(line, wanted, rtol=1e-4, atol=1e-6)
    assert lines[0].any()
    assert not lines[1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_flags_stay_as_they_are(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(epochs=1), upto=1)
    rows = EncodedMixture(Mixture.of(bench.tasks[0]), run.model.objective)
    parameters = run.model.adapters.trainable()
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    trainable = [p.requires_grad for p in run.model.network.parameters()]
    some = dict(list(parameters.items())[:1])
    for wanted in (parameters, some):
        lines = grouped_gradients(run, wanted, rows.__getitems__([(0, 1)]), [0], 1, item_losses)
        assert lines.shape == (1, sum(p.numel() for p in wanted.values()))
    assert trainable == [p.requires_grad for p in run.model.network.parameters()]
    assert all((p.grad == 1).all() for p in parameters.values())


def test_nothing_gives_zeros(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run()
    lines = grouped_gradients(run, run.model.adapters.trainable(), {}, [], 2, item_losses)
    assert len(lines) == 2
    assert not lines.any()


def test_a_layer_that_is_called_twice_adds_up(llama, bert):
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.out = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.out(self.layer(self.layer(x[:, :4]).relu_()))

    bench = make_bench("plain", llama, bert)
    run = bench.run()
    run.model.adapters.network = Twice()
    parameters = dict(run.model.network.named_parameters())
    batch = {"x": torch.randn(5, 8), "y": torch.tensor([0, 1, 2, 0, 1])}
    lines = grouped_gradients(run, parameters, batch, [0, 0, 1, 1, 1], 2, item_losses)
    for line, (start, stop) in zip(lines, ((0, 2), (2, 5)), strict=True):
        outputs = run.model.objective.forward(run.model.network, {k: t[start:stop] for k, t in batch.items()})
        wanted = torch.autograd.grad(item_losses(outputs).sum(), list(parameters.values()))
        torch.testing.assert_close(line, torch.cat([g.flatten() for g in wanted]))
