"""Gradient sketches: what they are in exact terms, how far chance moves them, and what they don't depend on."""

import pytest
import torch
from torch import nn

from everlearn.errors import ConfigError
from everlearn.experts.base import linear_layers
from everlearn.experts.signals import passes as passes_module
from everlearn.experts.signals.gradient import GradientSketch, row_sketches
from everlearn.experts.signals.layers import default_layers
from everlearn.experts.signals.passes import passes
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from everlearn.models.without import base_of
from support.experts import shake
from support.tasks import classify_task, prompt_task, tag_task, text_task

TASKS = {"prompt": prompt_task(1), "text": text_task(0), "classify": classify_task(1), "tag": tag_task(0)}


@pytest.fixture(scope="module")
def models(llama, bert) -> dict[str, Model]:
    """A model for each kind of task, whose LoRA has learned something."""
    folders = {"prompt": llama, "text": llama, "classify": bert, "tag": bert}
    made = {}
    for kind, task in TASKS.items():
        made[kind] = load_model(ModelConfig(str(folders[kind]), AdapterConfig(rank=2)), [task])
        shake(made[kind], 0)
    return made


def sketches(model: Model, task, layers=None, sides=(3, 4), size=32) -> tuple[GradientSketch, dict[str, torch.Tensor]]:
    known = linear_layers(model.adapters)
    sketch = GradientSketch(model.network, {n: known[n] for n in layers or default_layers(known)}, size, sides=sides)
    with base_of(model):
        return sketch, row_sketches(sketch, model.network, passes(model, task, list(task.train), 64))


class Many(nn.Module):
    """Linear maps of one input side by side, and a loss whose gradient is u xᵀ in each: as many draws as maps."""

    def __init__(self, u: torch.Tensor, x: torch.Tensor, n: int):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(len(x), len(u), bias=False) for _ in range(n))
        self.u, self.x = u, x

    @property
    def losses(self) -> torch.Tensor:
        return sum((each(self.x[None, None]) * self.u).sum((1, 2)) for each in self.maps)

    def sketches(self, sides: tuple[int, int]) -> torch.Tensor:
        layers = {f"maps.{n}": (len(self.u), len(self.x)) for n in range(len(self.maps))}
        found = row_sketches(GradientSketch(self, layers, len(layers), sides=sides), self, iter([self]))
        return torch.cat([found[name] for name in layers])


@pytest.mark.parametrize("kind", TASKS)
def test_a_sketch_is_the_projected_gradient_of_its_row(models, kind, monkeypatch):
    monkeypatch.setattr(passes_module, "BATCH_TOKENS", 1)  # each row by itself
    model, task = models[kind], TASKS[kind]
    sketch, found = sketches(model, task)
    modules = dict(model.network.get_base_model().named_modules())
    weights = {name: modules[f"{name}.base_layer"].weight for name in sketch.layers}
    with base_of(model), torch.enable_grad():
        for weight in weights.values():
            weight.requires_grad_(True)
        for row, one in enumerate(passes(model, task, list(task.train), 64)):
            gradients = torch.autograd.grad(one.losses.sum(), list(weights.values()))
            for name, gradient in zip(weights, gradients, strict=True):
                left, right = sketch._projections[name]
                wanted = left @ gradient @ right.T
                assert (found[name][row] - wanted).norm() < 1e-3 * wanted.norm(), name


@pytest.mark.parametrize("kind", TASKS)
def test_batches_and_padding_change_nothing(models, kind, monkeypatch):
    model, task = models[kind], TASKS[kind]
    monkeypatch.setattr(passes_module, "BATCH_TOKENS", 1)
    sketch, alone = sketches(model, task)
    for n_tokens in (30, 10_000):
        monkeypatch.setattr(passes_module, "BATCH_TOKENS", n_tokens)
        _, together = sketches(model, task)
        assert together.keys() == alone.keys()
        for name in alone:
            torch.testing.assert_close(together[name], alone[name], rtol=1e-3, atol=1e-6 * float(alone[name].max()))
        torch.testing.assert_close(sketch.stored(together), sketch.stored(alone), rtol=1e-3, atol=1e-5)


def test_inner_products_are_unbiased_and_vary_as_theory_says():
    generator = torch.Generator().manual_seed(0)
    u, x, v, y = (torch.randn(n, generator=generator) for n in (6, 9, 6, 9))
    u, x = u / u.norm(), x / x.norm()
    p, q, n = 8, 12, 1500
    first, second = Many(u, x, n), Many(u + 0.5 * v, x + 0.5 * y, n)
    sketch = first.sketches((p, q))
    own, between = sketch.square().sum((1, 2)), (sketch * second.sketches((p, q))).sum((1, 2))
    wanted = float((u @ second.u) * (x @ second.x))
    assert between.mean().item() == pytest.approx(wanted, abs=4 * between.std().item() / n**0.5)
    variance = (1 + 2 / p) * (1 + 2 / q) - 1
    of_variance = ((own - own.mean()) ** 2).std().item() / n**0.5
    assert own.mean().item() == pytest.approx(1, abs=4 * (variance / n) ** 0.5)
    assert own.var().item() == pytest.approx(variance, abs=4 * of_variance)
    assert of_variance < 0.1 * variance  # so that the bound 2 / (p q) = 0.02 of one plain projection would fail


def test_the_second_projection_keeps_inner_products(models):
    sketch, found = sketches(models["prompt"], TASKS["prompt"], sides=(8, 8), size=8000)
    other = {name: rows.flip(2) for name, rows in found.items()}
    means = [
        torch.cat([nn.functional.normalize(r.flatten(1)).mean(0) for r in each.values()]) for each in (found, other)
    ]
    kept = [sketch.stored(each) for each in (found, other)]
    scale = means[0].norm() * means[1].norm()
    assert abs(kept[0] @ kept[1] - means[0] @ means[1]) < 0.1 * scale
    assert kept[0] @ kept[0] == pytest.approx(float(means[0] @ means[0]), rel=0.1)


def test_a_row_of_large_gradients_counts_as_any_other(models):
    sketch, found = sketches(models["prompt"], TASKS["prompt"])
    louder = {name: rows * torch.linspace(1, 100, len(rows))[:, None, None] for name, rows in found.items()}
    torch.testing.assert_close(sketch.stored(louder), sketch.stored(found))


def test_what_is_stored_has_its_size_and_depends_on_the_seed(models):
    known = linear_layers(models["prompt"].adapters)
    layers = {name: known[name] for name in default_layers(known)[:3]}
    vectors = []
    for seed in (0, 0, 1):
        sketch = GradientSketch(models["prompt"].network, layers, 20, seed, (3, 4))
        rows = {name: torch.ones(2, 3, 4) for name in layers}
        vectors.append(sketch.stored(rows))
        assert vectors[-1].shape == (20,)
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    with pytest.raises(ConfigError, match="sketch_size: is too small"):
        GradientSketch(models["prompt"].network, layers, 2)


def test_no_weight_gets_a_gradient_and_the_graph_begins_at_the_first_layer(models):
    model, task = models["prompt"], TASKS["prompt"]
    flags = {name: parameter.requires_grad for name, parameter in model.network.named_parameters()}
    modules = dict(model.network.get_base_model().named_modules())
    graphs, seen = {}, []

    def note(module, inputs, output):
        graphs[module] = output.requires_grad

    below, at = (modules[f"model.layers.{n}.mlp.down_proj.base_layer"] for n in (0, 1))
    handles = [module.register_forward_hook(note) for module in (below, at)]
    known = linear_layers(model.adapters)
    sketch = GradientSketch(model.network, {n: known[n] for n in ("model.layers.1.mlp.gate_proj",)}, 8)
    with base_of(model):
        found = passes(model, task, list(task.train), 64)
        row_sketches(
            sketch, model.network, found,
            lambda one: seen.append(any(p.requires_grad for p in model.network.parameters())),
        )  # fmt: skip
    for handle in handles:
        handle.remove()
    assert graphs == {below: False, at: True}
    assert seen
    assert not any(seen)
    assert all(parameter.grad is None for parameter in model.network.parameters())
    assert flags == {name: parameter.requires_grad for name, parameter in model.network.named_parameters()}
    assert not any(module._forward_hooks for module in modules.values())


def test_a_layer_that_is_used_twice_has_the_sum_of_both():
    linear = nn.Linear(4, 4, bias=False)
    network, x = nn.Sequential(linear, nn.Tanh(), linear), torch.randn(2, 3, 4)
    sketch = GradientSketch(network, {"0": (4, 4)}, 1, sides=(4, 4))

    class One:
        @property
        def losses(self) -> torch.Tensor:
            return network(x).square().sum((1, 2))

    found = row_sketches(sketch, network, iter([One()]))["0"]
    for row in range(2):
        (gradient,) = torch.autograd.grad(network(x[row]).square().sum(), linear.weight)
        left, right = sketch._projections["0"]
        torch.testing.assert_close(found[row], left @ gradient @ right.T, rtol=1e-4, atol=1e-5)
