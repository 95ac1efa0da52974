"""Layers to sketch: which are the default, how a survey ranks them, and names that are wrong."""

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.experts.base import linear_layers
from everlearn.experts.signals import SignalConfig, Signals
from everlearn.experts.signals.layers import (
    Surveyed,
    apart,
    checked_layers,
    default_layers,
    proposed,
    survey,
    upper_third,
)
from support.tasks import contrary_task, prompt_task

SHAPES = {f"model.layers.{n}.mlp.{part}": (8, 4) for n in range(30) for part in ("up_proj", "down_proj")}


def test_the_upper_third_counts_blocks():
    assert upper_third(SHAPES) == list(SHAPES)[40:]
    assert upper_third({"a.0.x": (1, 1), "a.1.x": (1, 1)}) == ["a.1.x"]
    assert upper_third({"first": (1, 1), "last": (1, 1)}) == ["first", "last"]


def test_a_wrong_name_is_refused_with_the_nearest(model):
    with pytest.raises(ConfigError, match=r"Got 'model.layers.1.mlp.donw_proj'.*Did you mean 'model.layers"):
        Signals(model, SignalConfig(grad_sketch_layers=["model.layers.1.mlp.donw_proj"]))
    with pytest.raises(ConfigError, match="no such linear layer"):
        checked_layers([], SHAPES)
    name = "model.layers.0.mlp.down_proj"
    assert Signals(model, SignalConfig(grad_sketch_layers=[name])).settings["grad_sketch_layers"] == [name]


def test_a_survey_measures_norms_without_a_full_gradient(model):
    task = prompt_task(0, n_train=8)
    found = survey(model, [task], k=8)
    assert found.keys() == linear_layers(model.adapters).keys()
    name = "model.layers.1.mlp.down_proj"
    weight = model.network.get_base_model().get_submodule(f"{name}.base_layer").weight
    squares = []
    for row in range(8):
        features = model.objective.take(model.objective.encode(task.train, task), [row])
        batch = model.objective.collate(features)
        weight.requires_grad_(True)
        with model.network.disable_adapter(), torch.enable_grad():
            outputs = model.objective.forward(model.network, batch)
            loss = torch.nn.functional.cross_entropy(outputs.logits, outputs.targets)
            (gradient,) = torch.autograd.grad(loss, weight)
        weight.requires_grad_(False)
        squares.append(float(gradient.square().sum()))
    assert found[name].norm == pytest.approx((sum(squares) / 8) ** 0.5, rel=0.3)
    assert found[name].auc is None
    assert proposed(linear_layers(model.adapters), found) == default_layers(linear_layers(model.adapters))


def test_a_survey_of_several_tasks_tells_them_apart(model):
    layers = linear_layers(model.adapters)
    found = survey(model, [contrary_task(0), contrary_task(1)], k=3)
    assert max(layer.auc for layer in found.values()) == 1.0
    assert set(proposed(layers, found)) <= set(upper_third(layers))


def test_layers_that_tell_tasks_apart_are_proposed():
    names = list(SHAPES)
    found = {name: Surveyed(1.0, 0.6, 0.1) for name in names}
    best = names[41:49]
    found.update({name: Surveyed(0.1, 0.9, 1.0) for name in best})
    found[names[3]] = Surveyed(9.0, 1.0, 9.0)  # not in the upper third
    assert proposed(SHAPES, found) == best


def test_apart_is_the_chance_that_a_pair_of_one_task_is_more_alike():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 20, generator=generator)
    owners = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    noise = torch.randn(9, 20, generator=generator)
    auc, gap = apart(centres[owners] + 0.1 * noise, owners)
    assert auc == 1.0
    assert gap > 3
    many = [n % 3 for n in range(60)]
    auc, gap = apart(torch.randn(60, 20, generator=generator), many)
    assert auc == pytest.approx(0.5, abs=0.06)
    assert gap == pytest.approx(0, abs=0.25)
    assert apart(noise, [0] * 9) == (None, None)
    assert apart(noise, list(range(9))) == (None, None)
