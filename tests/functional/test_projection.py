import pytest
import torch

from everlearn.functional.projection import project_against
from reference.projection import gem_with_one_memory

SCALES = (1e-6, 1e-3, 1.0, 1e3)


def pieces(vector):
    return [vector[:6].clone().view(2, 3), vector[6:].clone()]


def joined(tensors):
    return torch.cat([t.flatten() for t in tensors])


def cosine(first, second):
    return torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=0).item()


@pytest.mark.parametrize("memory_scale", SCALES)
@pytest.mark.parametrize("scale", SCALES)
def test_afterwards_nothing_points_against_the_memory_at_any_scale(scale, memory_scale):
    generator = torch.Generator().manual_seed(0)
    n_changed = 0
    for _ in range(50):
        gradient = scale * torch.randn(10, generator=generator)
        memory = memory_scale * torch.randn(10, generator=generator)
        parts = pieces(gradient)
        changed = project_against(parts, pieces(memory))
        assert changed == (cosine(gradient, memory) < 0)
        assert cosine(joined(parts), memory) >= -1e-6
        n_changed += changed
    assert 10 < n_changed < 40


@pytest.mark.parametrize("scale", SCALES)
def test_it_equals_gem_with_one_memory(scale):
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        gradient, memory = scale * torch.randn(10, generator=generator), torch.randn(10, generator=generator)
        parts = pieces(gradient)
        project_against(parts, pieces(memory))
        wanted = gem_with_one_memory(gradient.numpy(), memory.numpy())
        torch.testing.assert_close(joined(parts), wanted, rtol=1e-5, atol=1e-6 * scale)


def test_it_works_where_squares_overflow_or_vanish():
    for scale in (1e-30, 1e30):
        gradient = [torch.tensor([scale, -scale])]
        assert project_against(gradient, [torch.tensor([-scale, 0.0])])
        torch.testing.assert_close(gradient[0], torch.tensor([0.0, -scale]))


def test_a_gradient_along_the_memory_or_nothing_stays_bit_for_bit():
    gradient = [torch.tensor([1.0, 2.0])]
    assert not project_against(gradient, [torch.tensor([1.0, -0.4])])
    assert not project_against(gradient, [torch.zeros(2)])
    assert not project_against([torch.zeros(2)], gradient)
    assert torch.equal(gradient[0], torch.tensor([1.0, 2.0]))


def test_opposite_gradients_cancel():
    gradient = [torch.tensor([1.0, 2.0])]
    assert project_against(gradient, [torch.tensor([-2.0, -4.0])])
    torch.testing.assert_close(gradient[0], torch.zeros(2))
