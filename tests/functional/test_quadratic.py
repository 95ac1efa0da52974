import torch
from torch import nn

from everlearn.functional.quadratic import add_anchored_gradients, add_quadratic_gradients, follow


def with_gradients(shapes, generator):
    weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    return weights


def test_the_merged_penalty_equals_the_sum_of_the_separate_ones():
    generator = torch.Generator().manual_seed(0)
    shapes, strength = [(3, 2), (4,)], 7.0
    weights = with_gradients(shapes, generator)
    tasks = [
        [(torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)) for shape in shapes]
        for _ in range(5)
    ]
    written_out = sum(
        0.5 * strength * (fisher * (weight - anchor) ** 2).sum()
        for task in tasks
        for weight, (fisher, anchor) in zip(weights, task, strict=True)
    )
    wanted = torch.autograd.grad(written_out, weights)
    precision = [sum(task[i][0] for task in tasks) for i in range(2)]
    pull = [sum(task[i][0] * task[i][1] for task in tasks) for i in range(2)]
    with torch.no_grad():
        add_quadratic_gradients(weights, precision, pull, strength)
    for weight, gradient in zip(weights, wanted, strict=True):
        torch.testing.assert_close(weight.grad, gradient + 1, rtol=1e-5, atol=1e-5)


def test_anchored_gradients_equal_those_of_the_penalty_and_leave_others_alone():
    generator = torch.Generator().manual_seed(1)
    weights = dict(zip("abcd", with_gradients([(3, 2), (4,), (2,), (5,)], generator), strict=True))
    weights["c"].grad = None
    anchors = {name: torch.randn(weights[name].shape, generator=generator) for name in "abc"}
    precision = {name: torch.rand(weights[name].shape, generator=generator) for name in "ac"}
    written_out = 0.5 * 3.0 * (precision["a"] * (weights["a"] - anchors["a"]) ** 2).sum()
    (wanted,) = torch.autograd.grad(written_out, [weights["a"]])
    add_anchored_gradients(weights, anchors, 3.0, precision)
    torch.testing.assert_close(weights["a"].grad, wanted + 1)
    assert torch.equal(weights["b"].grad, torch.ones(4))  # no precision
    assert weights["c"].grad is None
    assert torch.equal(weights["d"].grad, torch.ones(5))  # no anchor


def test_without_a_precision_every_weight_is_pulled_alike():
    weights = {"a": with_gradients([(3,)], torch.Generator().manual_seed(2))[0]}
    add_anchored_gradients(weights, {"a": torch.zeros(3)}, 2.0)
    torch.testing.assert_close(weights["a"].grad, 1 + 2 * weights["a"].detach())


def test_at_the_anchor_and_at_strength_0_gradients_keep_every_bit():
    weights = {"a": with_gradients([(3,)], torch.Generator().manual_seed(3))[0]}
    add_anchored_gradients(weights, {"a": weights["a"].detach().clone()}, 5.0, {"a": torch.full((3,), 1e9)})
    assert torch.equal(weights["a"].grad, torch.ones(3))
    add_anchored_gradients(weights, {"a": torch.full((3,), float("inf"))}, 0.0)
    assert torch.equal(weights["a"].grad, torch.ones(3))


def test_follow_moves_tensors_in_place_and_leaves_them_where_they_are_right():
    kept = {"a": torch.ones(2)}
    same = kept["a"]
    follow(torch.device("cpu"), kept, {})
    assert kept["a"] is same
    follow(torch.device("meta"), kept)
    assert kept["a"].device.type == "meta"
