import pytest
import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ConfigError
from everlearn.functional import fisher
from everlearn.functional.fisher import KINDS, sum_of_squared_gradients
from everlearn.learners.loader import row_batches
from everlearn.types import Outputs
from reference.fisher import empirical_fisher, exact_fisher
from support.models import Twice
from support.runs import make_bench, start_lora_away_from_zero
from support.tasks import prompt_task


def outputs_of(network):
    return lambda batch: Outputs(network(batch["x"]), batch["y"], torch.arange(len(batch["y"])))


def cut(x, y, size):
    return [{"x": x[i : i + size], "y": y[i : i + size]} for i in range(0, len(x), size)]


def made(network, batches, kind, seed=0, **processes):
    parameters = dict(network.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    return sum_of_squared_gradients(
        network, parameters, batches, outputs_of(network), kind, generator, **processes
    )  # fmt: skip


@pytest.fixture
def seeded():
    torch.manual_seed(3)


@pytest.mark.usefixtures("seeded")
def test_exact_equals_the_closed_form_on_a_softmax_linear_model():
    network = nn.Linear(4, 3)
    x, y = torch.randn(10, 4), torch.randint(3, (10,))
    sums, n = made(network, cut(x, y, 10), "exact")
    p = F.softmax(network(x), dim=-1).detach()
    variance = p * (1 - p)  # E_c[(1[c = k] - p_k)^2] under p
    torch.testing.assert_close(sums["weight"], variance.T @ x.square())
    torch.testing.assert_close(sums["bias"], variance.sum(0))
    assert n == 10


@pytest.mark.usefixtures("seeded")
def test_empirical_equals_the_closed_form_and_vanishes_where_exact_does_not():
    network = nn.Linear(4, 3)
    x, y = torch.randn(10, 4), torch.randint(3, (10,))
    error = F.softmax(network(x), dim=-1).detach() - F.one_hot(y, 3)
    sums, _ = made(network, cut(x, y, 4), "empirical")
    torch.testing.assert_close(sums["weight"], error.square().T @ x.square())


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_change_with_the_batch_size(kind):
    network, x, y = Twice(), torch.randn(12, 4, 5), torch.randint(3, (12,))
    whole, _ = made(network, cut(x, y, 12), kind)
    for size in (1, 5):
        parts, n = made(network, cut(x, y, size), kind)
        assert n == 12
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("kind", KINDS)
def test_processes_add_up_to_one(kind):
    network, x, y = Twice(), torch.randn(12, 4, 5), torch.randint(3, (12,))
    whole, _ = made(network, cut(x, y, 5), kind)
    shares = [made(network, cut(x, y, 5), kind, rank=rank, world_size=2) for rank in (0, 1)]
    assert [n for _, n in shares] == [7, 5]
    for name, value in whole.items():
        torch.testing.assert_close(shares[0][0][name] + shares[1][0][name], value, rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "network", [Twice(), nn.Sequential(nn.Flatten(), nn.Linear(20, 7), nn.Tanh(), nn.Linear(7, 3))]
)
def test_hooks_equal_row_by_row(kind, network, monkeypatch):
    x, y = torch.randn(9, 4, 5), torch.randint(3, (9,))
    by_hooks, _ = made(network, cut(x, y, 4), kind)
    monkeypatch.setattr(fisher, "linear_layers", lambda network, parameters: None)
    by_row, _ = made(network, cut(x, y, 4), kind)
    assert any(value.abs().sum() > 0 for value in by_row.values())
    for name, value in by_row.items():
        torch.testing.assert_close(by_hooks[name], value, rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("seeded")
def test_exact_equals_the_reference_on_a_layer_used_twice():
    network, x, y = Twice(), torch.randn(6, 4, 5), torch.randint(3, (6,))
    found, _ = made(network, cut(x, y, 3), "exact")
    wanted = exact_fisher(dict(network.named_parameters()), list(x), lambda row: network(row[None])[0])
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("seeded")
def test_layers_other_than_linear_are_taken_row_by_row():
    network = nn.Sequential(nn.LayerNorm(5), nn.Flatten(), nn.Linear(20, 3))
    x, y = torch.randn(6, 4, 5), torch.randint(3, (6,))
    found, _ = made(network, cut(x, y, 4), "exact")
    wanted = exact_fisher(dict(network.named_parameters()), list(x), lambda row: network(row[None])[0])
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("seeded")
def test_a_layer_that_mixes_rows_falls_back_to_rows():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return self.layer(x.flatten(0, 1)).view(len(x), -1, 3).mean(1)

    network, x, y = Mixing(), torch.randn(6, 4, 5), torch.randint(3, (6,))
    found, _ = made(network, cut(x, y, 6), "exact")
    wanted = exact_fisher(dict(network.named_parameters()), list(x), lambda row: network(row[None])[0])
    torch.testing.assert_close(found["layer.weight"], wanted["layer.weight"], rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("seeded")
def test_sampled_is_exact_in_expectation():
    network, x, y = nn.Linear(4, 3), torch.randn(5, 4), torch.randint(3, (5,))
    exact, _ = made(network, cut(x, y, 5), "exact")
    n_draws = 4000
    sampled, _ = made(network, cut(x.repeat(n_draws, 1), y.repeat(n_draws), 2000), "sampled")
    torch.testing.assert_close(sampled["weight"] / n_draws, exact["weight"], rtol=0.1, atol=0.02)
    torch.testing.assert_close(sampled["bias"] / n_draws, exact["bias"], rtol=0.1, atol=0.02)


@pytest.mark.usefixtures("seeded")
def test_draws_follow_the_probabilities_and_never_take_an_impossible_class():
    p = torch.tensor([[0.0, 0.1, 0.0, 0.6, 0.3]]).repeat(20_000, 1)
    drawn = fisher.draw(p, torch.arange(20_000), list(range(20_000)))
    shares = torch.bincount(drawn[:, 0], minlength=5) / 20_000
    torch.testing.assert_close(shares, p[0], rtol=0, atol=0.015)
    assert shares[0] == shares[2] == 0


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("kind", ["exact", "sampled", "empirical"])
def test_regression(kind):
    network, x = nn.Linear(3, 1), torch.randn(4000, 3)
    y = network(x).detach() + (2.0 if kind == "empirical" else 0.0)
    sums, _ = made(network, cut(x, y, 1000), kind)
    wanted = x.square().sum(0, keepdim=True) * (4.0 if kind == "empirical" else 1.0)
    torch.testing.assert_close(sums["weight"], wanted, rtol=0.15 if kind == "sampled" else 1e-4, atol=1e-3)


@pytest.mark.usefixtures("seeded")
@pytest.mark.usefixtures("seeded")
def test_several_labels_each_by_itself_equal_the_closed_form():
    network = nn.Linear(4, 3)
    x, y = torch.randn(10, 4), torch.randint(2, (10, 3)).float()
    p = network(x).sigmoid().detach()

    def binary(batch):
        return Outputs(network(batch["x"]), batch["y"], torch.arange(len(batch["y"])), binary=True)

    def found(kind, seed=0):
        generator = torch.Generator().manual_seed(seed)
        parameters = dict(network.named_parameters())
        return sum_of_squared_gradients(network, parameters, cut(x, y, 4), binary, kind, generator)[0]["weight"]

    torch.testing.assert_close(found("exact"), (p * (1 - p)).T @ x.square())
    torch.testing.assert_close(found("empirical"), (p - y).square().T @ x.square())
    drawn = torch.stack([found("sampled", seed) for seed in range(300)]).mean(0)
    torch.testing.assert_close(drawn, found("exact"), rtol=0.15, atol=0.1)


def test_it_leaves_modes_flags_gradients_and_hooks_as_they_were():
    network, x, y = Twice(), torch.randn(4, 4, 5), torch.randint(3, (4,))
    network.eval()
    kept = torch.ones_like(network.inner.weight)
    network.inner.weight.grad = kept
    state = torch.get_rng_state()
    for kind in KINDS:
        made(network, cut(x, y, 2), kind)
    assert network.inner.weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert network.outer.weight.grad is None
    assert all(p.requires_grad for p in network.parameters())
    assert not any(layer._forward_hooks for layer in network.modules())
    assert not network.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("classes", "targets"), [(1001, 1), (3, 2)])
def test_exact_refuses_what_would_take_for_ever(classes, targets):
    layer = nn.Linear(2, classes)

    def forward(batch):
        logits = layer(batch["x"]).repeat_interleave(targets, 0)
        return Outputs(logits, torch.zeros(len(logits), dtype=torch.long), torch.arange(2).repeat_interleave(targets))

    with pytest.raises(ConfigError, match=r"^fisher: exact would.*sampled"):
        sum_of_squared_gradients(layer, dict(layer.named_parameters()), [{"x": torch.ones(2, 2)}], forward, "exact")


@pytest.mark.parametrize("kind", ["empirical", "sampled"])
@pytest.mark.parametrize("adapter", ["causal_lora", "causal_full"])
def test_on_a_language_model_it_is_per_sequence_at_any_batch_size_and_padding(llama, bert, kind, adapter):
    bench = make_bench(adapter, llama, bert)
    model, task = (run := bench.run()).model, prompt_task(0, n_train=7)
    start_lora_away_from_zero(run)

    def found(size):
        batches = [batch for _, batch in row_batches(model.objective, task.train, task, size)]
        with model.evaluating():
            return sum_of_squared_gradients(
                model.network, model.adapters.trainable(), batches,
                lambda batch: model.objective.forward(model.network, batch), kind, torch.Generator().manual_seed(0),
            )[0]  # fmt: skip

    whole, single = found(7), found(1)
    assert all(value.sum() > 0 for name, value in whole.items() if "lora" in name)
    for name, value in single.items():
        torch.testing.assert_close(whole[name], value, rtol=2e-3, atol=1e-6)


def test_on_a_language_model_it_equals_the_reference(llama, bert):
    model, task = make_bench("causal_lora", llama, bert).run().model, prompt_task(0, n_train=5)
    rows = [batch for _, batch in row_batches(model.objective, task.train, task, 1)]
    whole = [batch for _, batch in row_batches(model.objective, task.train, task, 5)]

    def log_likelihood(batch):
        logits = model.network(input_ids=batch["input_ids"]).logits[0, :-1]
        targets = batch["labels"][0, 1:]
        return -F.cross_entropy(logits, targets, reduction="sum", ignore_index=-100)

    with model.evaluating():
        wanted = empirical_fisher(model.adapters.trainable(), rows, log_likelihood)
        found, _ = sum_of_squared_gradients(
            model.network, model.adapters.trainable(), whole,
            lambda batch: model.objective.forward(model.network, batch), "empirical",
        )  # fmt: skip
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6)
