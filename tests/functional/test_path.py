import torch
from torch import nn

from everlearn.functional.path import Departure


def test_a_weights_share_of_the_loss_saved_is_its_gradient_times_its_movement():
    weights = {"a": nn.Parameter(torch.tensor([1.0, 2.0])), "unused": nn.Parameter(torch.ones(1))}
    weights["a"].grad = torch.tensor([3.0, -1.0])
    departure = Departure.of(weights)
    weights["a"].grad.zero_()  # clipping and other methods may change it
    with torch.no_grad():
        weights["a"].add_(torch.tensor([-0.5, -0.5]))
    assert departure.names == ["a"]
    (saved,) = departure.loss_decrease(weights)
    torch.testing.assert_close(saved, torch.tensor([1.5, -0.5]))


def test_shares_add_up_to_the_loss_saved_along_small_steps():
    torch.manual_seed(0)
    target, weight = torch.randn(4), nn.Parameter(torch.randn(4))
    before, saved = ((weight - target) ** 2).sum().item(), torch.zeros(4)
    for _ in range(2000):
        weight.grad = 2 * (weight.detach() - target)
        departure = Departure.of({"w": weight})
        with torch.no_grad():
            weight.sub_(weight.grad, alpha=1e-3)
        saved += departure.loss_decrease({"w": weight})[0]
    after = ((weight - target) ** 2).sum().item()
    assert abs(saved.sum().item() - (before - after)) < 0.01 * (before - after)


def test_half_precision_is_counted_in_float32():
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    weight.grad = torch.ones(2, dtype=torch.bfloat16)
    departure = Departure.of({"w": weight})
    assert departure.weights[0].dtype == departure.loss_decrease({"w": weight})[0].dtype == torch.float32


def test_a_step_that_fp16_skips_leaves_no_trace():
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([float("inf"), 1.0])
    assert Departure.of({"w": weight}, may_overflow=True).names == []
    weight.grad = torch.ones(2)
    assert Departure.of({"w": weight}, may_overflow=True).names == ["w"]
