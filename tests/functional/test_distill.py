import math

import pytest
import torch

from everlearn.functional.distill import (
    distillation_loss,
    divergences,
    mean_squares,
    outcomes_at,
    top_outcomes,
)


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


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_labels_that_are_there_or_not_add_up(temperature):
    teacher, student = (torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    expected = 0.0
    for t, s in zip(teacher.flatten().tolist(), student.flatten().tolist(), strict=True):
        p, q = (1 / (1 + math.exp(-z / temperature)) for z in (t, s))
        expected += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    found = distillation_loss(teacher, student, temperature, family="bernoulli").item()
    assert found == pytest.approx(temperature**2 * expected / 5, rel=1e-5)
    far = torch.tensor([[200.0, -200.0]])
    assert math.isfinite(distillation_loss(far, -far, family="bernoulli").item())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_numbers_are_half_their_squared_distance_apart(temperature):
    teacher, student = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]], requires_grad=True)
    found = distillation_loss(teacher, student, temperature, strength=3.0, family="normal")
    assert found.item() == pytest.approx(3.0 * (0.5 * 4.0 + 0.0) / 2)
    found.backward()
    assert student.grad.flatten().tolist() == pytest.approx([3.0, 0.0])
    assert distillation_loss(teacher[:0], student[:0], family="normal").item() == 0.0


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


def logits_of(n, n_classes, seed=0, scale=3.0):
    return scale * torch.randn(n, n_classes, generator=torch.Generator().manual_seed(seed))


def test_a_divergence_is_the_distillation_loss_of_a_line():
    teacher, student = logits_of(5, 7), logits_of(5, 7, seed=1)
    lines = divergences(teacher.log_softmax(-1), student.log_softmax(-1))
    assert lines.shape == (5,)
    assert lines.mean().item() == pytest.approx(written_out(teacher, student, 1.0), rel=1e-5)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_top_outcomes_are_the_largest_and_the_mass_of_the_others(k):
    log_p = logits_of(4, 7).log_softmax(-1)
    outcomes, columns = top_outcomes(log_p, k)
    assert outcomes.shape == (4, k + 1)
    for line, found, places in zip(log_p.tolist(), outcomes.tolist(), columns.tolist(), strict=True):
        assert found[:k] == sorted(line, reverse=True)[:k] == [line[place] for place in places]
        rest = sum(math.exp(value) for place, value in enumerate(line) if place not in places)
        assert math.exp(found[k]) == pytest.approx(rest, rel=1e-5)
    assert outcomes.exp().sum(-1).tolist() == pytest.approx([1.0] * 4, rel=1e-5)


def test_without_others_all_classes_stand_in_their_order():
    logits = logits_of(4, 7)
    for k in (7, 100):
        outcomes, columns = top_outcomes(logits, k)
        assert torch.equal(outcomes, logits)
        assert columns.tolist() == [list(range(7))] * 4


def test_logits_with_the_rest_have_the_softmax_of_all():
    logits = logits_of(4, 9)
    outcomes, columns = top_outcomes(logits, 3)
    torch.testing.assert_close(outcomes.softmax(-1)[:, :3], logits.softmax(-1).gather(1, columns))


def test_joining_classes_never_adds_to_a_divergence_and_keeps_it_where_they_have_one_ratio():
    teacher, student = logits_of(6, 20).log_softmax(-1), logits_of(6, 20, seed=1).log_softmax(-1)
    whole = divergences(teacher, student)
    before = torch.zeros(6)
    for k in (1, 4, 12, 19, 20):
        values, columns = top_outcomes(teacher, k)
        found = divergences(values, outcomes_at(student, columns, with_rest=k < 20))
        assert (found <= whole + 1e-5).all()
        assert (found >= before - 1e-5).all(), "a finer cut sees more"
        before = found
    torch.testing.assert_close(before, whole)
    p, q = torch.tensor([[0.5, 0.2, 0.2, 0.1]]), torch.tensor([[0.6, 0.16, 0.16, 0.08]])
    values, columns = top_outcomes(p.log(), 1)
    exact = divergences(values, outcomes_at(q.log(), columns, with_rest=True))
    torch.testing.assert_close(exact, divergences(p.log(), q.log()))


def test_gradients_reach_every_class_through_the_rest():
    student = logits_of(3, 8, seed=1).requires_grad_()
    values, columns = top_outcomes(logits_of(3, 8).log_softmax(-1), 2)
    divergences(values, outcomes_at(student.log_softmax(-1), columns, with_rest=True)).sum().backward()
    assert torch.isfinite(student.grad).all()
    assert (student.grad != 0).all()


def test_mean_squares_are_over_known_outcomes_and_pass_over_hidden_ones():
    lowest = torch.finfo(torch.float32).min / 4
    student = torch.tensor([[1.0, 2.0, 5.0], [0.0, 3.0, lowest]], requires_grad=True)
    stored, known = torch.tensor([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]), torch.tensor([[True] * 3, [True, True, False]])
    found = mean_squares(student, stored, known)
    found.sum().backward()
    assert found.tolist() == pytest.approx([(1 + 4 + 16) / 3, (1 + 4) / 2])
    assert student.grad.tolist() == [pytest.approx([2 / 3, 4 / 3, 8 / 3]), pytest.approx([-1.0, 2.0, 0.0])]
