import pytest
import torch
from torch.func import functional_call, vmap
from torch.nn import functional as F

from everlearn.functional.meta import adapt, maml_gradient, mer_weights, reptile_gradient, towards
from reference.meta import mer_by_hand

RATE = 0.1


def quadratic(weights, batch):
    """½ (w - c)' A (w - c)."""
    away = weights["w"] - batch["c"]
    return 0.5 * away @ batch["A"] @ away


def quadratic_batch(seed, n=4):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return {"A": root @ root.T / n, "c": torch.randn(n, generator=generator, dtype=torch.float64)}


def network(seed=0):
    """A smooth network, so that finite differences hold."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    return layers, {name: p.detach() for name, p in layers.named_parameters()}


def network_loss(layers):
    return lambda weights, batch: F.mse_loss(functional_call(layers, weights, (batch["x"],)), batch["y"])


def network_batch(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return {"x": x, "y": (x[:, :1] * x[:, 1:]).sin()}


@pytest.mark.parametrize("n_steps", [0, 1, 3])
def test_second_order_equals_the_closed_form_on_a_quadratic(n_steps):
    support, query = quadratic_batch(1), quadratic_batch(2)
    w = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    shrink = torch.eye(4, dtype=torch.float64) - RATE * support["A"]
    jacobian = torch.linalg.matrix_power(shrink, n_steps)
    adapted = support["c"] + jacobian @ (w - support["c"])
    at_adapted = query["A"] @ (adapted - query["c"])
    gradients, value = maml_gradient(quadratic, {"w": w}, [support] * n_steps, query, RATE)
    torch.testing.assert_close(gradients["w"], jacobian.T @ at_adapted)
    torch.testing.assert_close(value, quadratic({"w": adapted}, query))
    first, _ = maml_gradient(quadratic, {"w": w}, [support] * n_steps, query, RATE, first_order=True)
    torch.testing.assert_close(first["w"], at_adapted)


@pytest.mark.parametrize("adapted", [None, ("2.weight", "2.bias")])
def test_second_order_equals_finite_differences(adapted):
    layers, weights = network()
    loss, support, query = network_loss(layers), [network_batch(1), network_batch(2)], network_batch(3)
    gradients, _ = maml_gradient(loss, weights, support, query, RATE, adapted=adapted)
    first, _ = maml_gradient(loss, weights, support, query, RATE, adapted=adapted, first_order=True)
    for name, tensor in weights.items():
        numeric = torch.zeros_like(tensor)
        for place in range(tensor.numel()):
            nudge = torch.zeros_like(tensor)
            nudge.view(-1)[place] = 1e-5
            ends = [
                loss(adapt(loss, {**weights, name: tensor + sign * nudge}, support, RATE, adapted), query)
                for sign in (1, -1)
            ]
            numeric.view(-1)[place] = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close(gradients[name], numeric, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(first["0.weight"], gradients["0.weight"], rtol=1e-3)


def test_first_order_equals_second_order_where_the_hessian_vanishes():
    support, query = quadratic_batch(1), quadratic_batch(2)
    linear = {"A": torch.zeros(4, 4, dtype=torch.float64), "c": support["c"]}

    def loss(weights, batch):
        return quadratic(weights, batch) + batch["c"] @ weights["w"]

    w = {"w": torch.ones(4, dtype=torch.float64)}
    second, _ = maml_gradient(loss, w, [linear] * 3, query, RATE)
    first, _ = maml_gradient(loss, w, [linear] * 3, query, RATE, first_order=True)
    torch.testing.assert_close(second["w"], first["w"], rtol=0, atol=0)


def test_only_the_adapted_part_moves_and_all_of_it_has_a_gradient():
    layers, weights = network()
    loss = network_loss(layers)
    prediction = ("2.weight", "2.bias")
    end = adapt(loss, weights, [network_batch(1)] * 2, RATE, prediction)
    assert [name for name in weights if not torch.equal(end[name], weights[name])] == list(prediction)
    gradients, _ = maml_gradient(loss, weights, [network_batch(1)], network_batch(2), RATE, adapted=prediction)
    assert list(gradients) == list(weights)
    assert all(gradient.abs().sum() > 0 for gradient in gradients.values())


def test_reptile_is_the_formula():
    layers, weights = network()
    loss, support = network_loss(layers), [network_batch(1), network_batch(2)]
    end = adapt(loss, weights, support, RATE)
    gradients = reptile_gradient(loss, weights, support, RATE)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor - 0.3 * gradients[name], tensor + 0.3 * (end[name] - tensor))
        torch.testing.assert_close(tensor - 0.3 * gradients[name], towards(weights, end, 0.3)[name])


def test_mer_equals_the_loops_written_out():
    layers, weights = network()
    rows = [[network_batch(10 * i + j, n=1) for j in range(3)] for i in range(4)]
    fast = mer_weights(network_loss(layers), weights, rows, RATE, within=0.4, across=0.7)
    pairs = [[(row["x"], row["y"]) for row in batch] for batch in rows]
    slow = mer_by_hand(layers, pairs, RATE, within=0.4, across=0.7)
    for name, tensor in slow.items():
        torch.testing.assert_close(fast[name], tensor)


def test_tasks_can_be_mapped_over_at_once():
    layers, weights = network()
    loss, batches = network_loss(layers), [network_batch(seed) for seed in range(6)]
    stacked = [{name: torch.stack([b[name] for b in part]) for name in "xy"} for part in (batches[:3], batches[3:])]
    together = vmap(lambda s, q: maml_gradient(loss, weights, [s, s], q, RATE))(*stacked)
    for i in range(3):
        gradients, value = maml_gradient(loss, weights, [batches[i]] * 2, batches[3 + i], RATE)
        torch.testing.assert_close(together[1][i], value)
        for name, gradient in gradients.items():
            torch.testing.assert_close(together[0][name][i], gradient)
