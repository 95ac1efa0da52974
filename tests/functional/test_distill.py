import math

import pytest
import torch

from everlearn.functional.distill import distillation_loss


def written_out(teacher, student, temperature):
    total = 0.0
    for t_row, s_row in zip(teacher.tolist(), student.tolist(), strict=True):
        t_all = sum(math.exp(t / temperature) for t in t_row)
        s_all = sum(math.exp(s / temperature) for s in s_row)
        for t, s in zip(t_row, s_row, strict=True):
            p, q = math.exp(t / temperature) / t_all, math.exp(s / temperature) / s_all
            total += p * (math.log(p) - math.log(q))
    return temperature**2 * total / len(teacher)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
def test_it_equals_the_formula(temperature):
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(6, 4, generator=generator) for _ in range(2))
    found = distillation_loss(teacher, student, temperature).item()
    assert found == pytest.approx(written_out(teacher, student, temperature), rel=1e-5)


def test_it_is_from_the_teacher_to_the_student():
    sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    p = math.exp(4) / (math.exp(4) + 1)
    forward = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    assert distillation_loss(sure, unsure).item() == pytest.approx(forward, rel=1e-5)
    assert distillation_loss(unsure, sure).item() != pytest.approx(forward, rel=1e-2)


def test_equal_answers_cost_nothing_and_the_teacher_gets_no_gradient():
    logits = torch.linspace(-1, 1, 15).view(3, 5).requires_grad_()
    student = logits.detach().clone().requires_grad_()
    loss = distillation_loss(logits, student + 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is None
    assert student.grad is not None


def test_temperature_squared_keeps_the_gradient_of_small_logits():
    teacher = 0.01 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    student = torch.zeros(8, 4, requires_grad=True)
    gradients = [torch.autograd.grad(distillation_loss(teacher, student, t), student)[0] for t in (1.0, 8.0)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.05, atol=2e-6)


def test_hidden_classes_do_not_make_it_nan():
    lowest = torch.finfo(torch.float32).min / 4
    logits = torch.tensor([[1.0, lowest, 2.0]])
    assert distillation_loss(logits, logits.clone()).item() == pytest.approx(0, abs=1e-6)


def test_no_items_cost_nothing_and_keep_the_graph():
    student = torch.zeros(0, 3, requires_grad=True)
    loss = distillation_loss(torch.zeros(0, 3), student)
    loss.backward()
    assert loss.item() == 0
