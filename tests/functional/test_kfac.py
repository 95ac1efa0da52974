import importlib.util
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ConfigError
from everlearn.functional import kfac
from everlearn.functional.fisher import draw, sum_of_squared_gradients
from everlearn.learners.loader import row_batches
from everlearn.types import Outputs
from support.runs import make_bench, start_lora_away_from_zero
from support.tasks import prompt_task


def outputs_of(network):
    return lambda batch: Outputs(network(batch["x"]), batch["y"], torch.arange(len(batch["y"])))


def made(network, x, y, size, **processes):
    batches = [{"x": x[i : i + size], "y": y[i : i + size]} for i in range(0, len(x), size)]
    generator = torch.Generator().manual_seed(5)
    return kfac.kronecker_factors(
        network, dict(network.named_parameters()), batches, outputs_of(network), generator, **processes
    )  # fmt: skip


def assert_factors_close(first, second, **tolerance):
    assert first.keys() == second.keys()
    for names, factor in first.items():
        for side, tensor in factor.items():
            torch.testing.assert_close(second[names][side], tensor, **tolerance)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


def test_it_equals_a_slow_version_with_the_same_draws():
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))
    x, y = torch.randn(7, 4), torch.zeros(7, dtype=torch.long)
    found, n = made(network, x, y, 3)
    generator = torch.Generator().manual_seed(5)
    seeds = [s for size in (3, 3, 1) for s in torch.randint(2**62, (size,), generator=generator).tolist()]
    inputs, gradients = [torch.zeros(5, 5), torch.zeros(5, 5)], [torch.zeros(5, 5), torch.zeros(3, 3)]
    for row, seed in zip(x, seeds, strict=True):
        first = network[0](row)
        hidden = torch.tanh(first)
        logits = network[2](hidden)
        target = draw(logits.detach().softmax(-1)[None], torch.zeros(1, dtype=torch.long), [seed])[0, 0]
        g1, g2 = torch.autograd.grad(F.cross_entropy(logits, target), [first, logits])
        a1, a2 = torch.cat([row, torch.ones(1)]), hidden.detach()
        for side, vectors in ((inputs, (a1, a2)), (gradients, (g1, g2))):
            for total, vector in zip(side, vectors, strict=True):
                total += torch.outer(vector, vector)
    assert n == 7
    wanted = {
        names: {"inputs": inputs[i], "gradients": gradients[i]}
        for i, names in enumerate(("0.weight 0.bias", "2.weight"))
    }
    assert_factors_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_of_one_example_and_one_layer_it_is_the_whole_fisher():
    """Where there is nothing to factor apart, the block is exact; its diagonal is that of the sampled Fisher."""
    network, x, y = nn.Linear(4, 3), torch.randn(1, 4), torch.zeros(1, dtype=torch.long)
    found, _ = made(network, x, y, 1)
    diagonal, _ = sum_of_squared_gradients(
        network, dict(network.named_parameters()), [{"x": x, "y": y}], outputs_of(network), "sampled",
        torch.Generator().manual_seed(5),
    )  # fmt: skip
    factor = found["weight bias"]
    block = torch.kron(factor["gradients"], factor["inputs"]).diagonal().view(3, 5)
    torch.testing.assert_close(block[:, :4], diagonal["weight"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(block[:, 4], diagonal["bias"], rtol=1e-4, atol=1e-7)


def test_it_changes_neither_with_the_batch_size_nor_with_the_number_of_processes():
    network, x, y = (
        nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)),
        torch.randn(11, 5),
        torch.ones(11).long(),
    )
    whole, _ = made(network, x, y, 11)
    for size in (1, 4):
        assert_factors_close(whole, made(network, x, y, size)[0], rtol=1e-4, atol=1e-6)
    shares = [made(network, x, y, 4, rank=rank, world_size=4) for rank in range(4)]  # the last has nothing
    assert [n for _, n in shares] == [4, 4, 3, 0]
    summed = {
        names: {side: sum(share[names][side] for share, _ in shares) for side in factor}
        for names, factor in whole.items()
    }
    assert_factors_close(whole, summed, rtol=1e-4, atol=1e-6)


def test_regression_has_unit_variance():
    network, x = nn.Linear(3, 2), torch.randn(3000, 3)
    found, n = made(network, x, torch.randn(3000, 2), 1000)
    torch.testing.assert_close(found["weight bias"]["gradients"] / n, torch.eye(2), rtol=0, atol=0.1)


def test_several_labels_have_the_variance_of_their_chances():
    network, x = nn.Linear(3, 2), torch.randn(3000, 3)
    batches = [{"x": x[i : i + 500], "y": torch.zeros(500, 2)} for i in range(0, 3000, 500)]
    found, n = kfac.kronecker_factors(
        network,
        dict(network.named_parameters()),
        batches,
        lambda batch: replace(outputs_of(network)(batch), binary=True),
        torch.Generator().manual_seed(5),
    )
    p = network(x).sigmoid()
    torch.testing.assert_close(
        found["weight bias"]["gradients"] / n, torch.diag((p * (1 - p)).mean(0)), rtol=0, atol=0.03
    )


@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_is_that_of_the_quadratic_over_all_tasks(bias):
    layer, strength = nn.Linear(4, 3, bias=bias), 2.0
    names = "weight bias" if bias else "weight"
    n_inputs = 4 + bias
    tasks, anchors = [], []
    for _ in range(3):
        a, b = torch.randn(9, n_inputs), torch.randn(9, 3)
        tasks.append({names: {"inputs": a.T @ a, "gradients": b.T @ b}})
        anchors.append({name: torch.randn_like(p) for name, p in layer.named_parameters()})

    def flat(values):
        return torch.cat([values[n] if values[n].ndim == 2 else values[n][:, None] for n in names.split()], 1).flatten()

    parameters = dict(layer.named_parameters())
    written_out = sum(
        0.5 * strength * (flat(parameters) - flat(anchor))
        @ torch.kron(task[names]["gradients"], task[names]["inputs"]) @ (flat(parameters) - flat(anchor))
        for task, anchor in zip(tasks, anchors, strict=True)
    )  # fmt: skip
    wanted = torch.autograd.grad(written_out, list(parameters.values()))
    products = [kfac.curvature_product(task, anchor) for task, anchor in zip(tasks, anchors, strict=True)]
    pull = {names: sum(product[names] for product in products)}
    for p in parameters.values():
        p.grad = torch.ones_like(p)
    kfac.add_kronecker_gradients(parameters, tasks, pull, strength)
    for p, gradient in zip(parameters.values(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient + 1, rtol=1e-4, atol=1e-2)


def test_a_layer_that_is_not_wholly_trained_any_more_is_left_alone():
    layer = nn.Linear(2, 2)
    for p in layer.parameters():
        p.grad = torch.ones_like(p)
    layer.bias.grad = None
    factors = {"weight bias": {"inputs": torch.eye(3), "gradients": torch.eye(2)}}
    pull = {"weight bias": torch.ones(2, 3)}
    kfac.add_kronecker_gradients(dict(layer.named_parameters()), [factors], pull, 1.0)
    assert torch.equal(layer.weight.grad, torch.ones(2, 2))


def test_padding_does_not_count_on_a_language_model(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    model, task = (run := bench.run()).model, prompt_task(0, n_train=7)
    start_lora_away_from_zero(run)

    def found(size):
        batches = [batch for _, batch in row_batches(model.objective, task.train, task, size)]
        assert size == 1 or any("attention_mask" in batch for batch in batches)
        with model.evaluating():
            return kfac.kronecker_factors(
                model.network, model.adapters.trainable(), batches,
                lambda batch: model.objective.forward(model.network, batch), torch.Generator().manual_seed(0),
            )[0]  # fmt: skip

    whole, single = found(7), found(1)
    assert all(factor["gradients"].any() for factor in whole.values())
    assert_factors_close(single, whole, rtol=2e-3, atol=1e-5)


def test_it_leaves_flags_gradients_hooks_and_rng_as_they_were():
    network, x, y = nn.Sequential(nn.Linear(4, 3)), torch.randn(5, 4), torch.zeros(5, dtype=torch.long)
    network[0].weight.grad = kept = torch.ones(3, 4)
    state = torch.get_rng_state()
    made(network, x, y, 2)
    assert network[0].weight.grad is kept
    assert torch.equal(kept, torch.ones(3, 4))
    assert network[0].bias.grad is None
    assert all(p.requires_grad for p in network.parameters())
    assert not network[0]._forward_hooks
    assert not network[0]._forward_pre_hooks
    assert torch.equal(torch.get_rng_state(), state)


def test_other_layers_other_precisions_and_a_missing_package_are_refused(monkeypatch):
    network = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2))
    with pytest.raises(ConfigError, match=r"ewc\.fisher: kfac is for linear layers.*fisher: sampled"):
        kfac.check_layers("ewc.fisher", network, dict(network.named_parameters()))
    half = nn.Linear(3, 2, dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match=r"ewc\.fisher: kfac needs float32.*bfloat16"):
        kfac.check_layers("ewc.fisher", half, dict(half.named_parameters()))
    kfac.check_layers("ewc.fisher", network, dict(network[1].named_parameters(prefix="1")))
    kfac.check_installed("ewc.fisher")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"curvlinops is not installed.*everlearn\[kfac\].*--no-deps curvlinops"):
        kfac.check_installed("ewc.fisher")
