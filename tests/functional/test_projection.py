import numpy
import pytest
import torch

from everlearn.functional.projection import project_against, project_against_all, project_step, smallest_weights
from reference.projection import dual_by_enumeration, dual_by_quadprog, gem_with_one_memory

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


def unit_problem(n_references, n_weights, generator):
    """Return K and b of unit vectors that pull against each other."""
    lines = torch.randn(n_references + 1, n_weights, generator=generator, dtype=torch.float64)
    lines = torch.nn.functional.normalize(lines).numpy()
    return lines[:-1] @ lines[:-1].T, lines[:-1] @ lines[-1]


@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize("n_references", [1, 2, 3, 7])
def test_the_dual_equals_quadprog_and_all_active_sets_tried(n_references, margin):
    generator = torch.Generator().manual_seed(2)
    n_inside = 0
    for _ in range(30):
        inner, along = unit_problem(n_references, 9, generator)
        found = smallest_weights(inner, along, margin)
        numpy.testing.assert_allclose(found, dual_by_quadprog(inner, along, margin), atol=1e-9)
        numpy.testing.assert_allclose(found, dual_by_enumeration(inner, along, margin), atol=1e-9)
        n_inside += (found > margin + 1e-9).any() and (found < margin + 1e-9).any()
    assert n_references == 1 or n_inside > 5


def test_the_dual_is_solved_where_references_depend_on_each_other():
    generator = torch.Generator().manual_seed(3)
    for _ in range(30):
        inner, along = unit_problem(8, 3, generator)
        inner, along = numpy.tile(inner, (2, 2)), numpy.tile(along, 2)  # each one twice, and all in three dimensions
        found = smallest_weights(inner, along)
        value = 0.5 * found @ inner @ found + along @ found
        other = dual_by_enumeration(inner[:8, :8], along[:8], 0.0)
        assert value == pytest.approx(0.5 * other @ inner[:8, :8] @ other + along[:8] @ other, abs=1e-9)
        assert (found >= 0).all()


@pytest.mark.parametrize("memory_scale", SCALES)
@pytest.mark.parametrize("scale", SCALES)
def test_afterwards_nothing_points_against_any_memory_at_any_scale(scale, memory_scale):
    generator = torch.Generator().manual_seed(4)
    n_changed = 0
    for _ in range(50):
        gradient = scale * torch.randn(10, generator=generator)
        memories = memory_scale * torch.randn(5, 10, generator=generator)
        memories[1] *= 1e-3  # nor do the memories' own scales matter
        parts = pieces(gradient)
        changed = project_against_all(parts, memories.clone())
        against = [cosine(gradient, memory) < 0 for memory in memories]
        assert changed == any(against)
        if joined(parts).any():
            assert min(cosine(joined(parts), memory) for memory in memories) >= -1e-6
        n_changed += changed
    assert n_changed > 30


@pytest.mark.parametrize("scale", SCALES)
def test_it_is_the_nearest_vector_that_points_against_none(scale):
    generator = torch.Generator().manual_seed(5)
    for _ in range(20):
        gradient = torch.randn(30, generator=generator, dtype=torch.float64)
        memories = torch.randn(4, 30, generator=generator, dtype=torch.float64)
        weights = dual_by_quadprog((memories @ memories.T).numpy(), (memories @ gradient).numpy(), 0.0)
        wanted = scale * (gradient + torch.from_numpy(weights) @ memories)
        parts = pieces((scale * gradient).float())
        project_against_all(parts, memories.float())
        torch.testing.assert_close(joined(parts), wanted.float(), rtol=1e-4, atol=2e-6 * scale)


@pytest.mark.parametrize("scale", SCALES)
def test_with_one_reference_all_of_them_equal_a_gem(scale):
    generator = torch.Generator().manual_seed(6)
    for _ in range(20):
        gradient, memory = scale * torch.randn(10, generator=generator), torch.randn(10, generator=generator)
        one, all_of_them = pieces(gradient), pieces(gradient)
        assert project_against(one, pieces(memory)) == project_against_all(all_of_them, memory[None].clone())
        torch.testing.assert_close(joined(one), joined(all_of_them), rtol=1e-5, atol=1e-6 * scale)


def test_the_margin_is_the_share_of_each_direction_that_is_added():
    gradient = [torch.tensor([3.0, -4.0, 0.0])]  # length 5
    memories = torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.0, 70.0]])
    assert project_against_all(gradient, memories, margin=0.1)
    torch.testing.assert_close(gradient[0], torch.tensor([3.0, 0.0, 0.5]))


def test_all_of_them_work_where_squares_overflow_or_vanish():
    for scale in (1e-30, 1e30):
        gradient = [torch.tensor([scale, -scale])]
        assert project_against_all(gradient, torch.tensor([[-scale, 0.0], [0.0, 0.0], [0.0, 1.0]]))
        torch.testing.assert_close(gradient[0], torch.zeros(2), atol=1e-6 * scale, rtol=0)


def test_a_gradient_against_none_of_them_stays_bit_for_bit():
    gradient = [torch.tensor([1.0, 2.0])]
    assert not project_against_all(gradient, torch.tensor([[1.0, -0.4], [0.0, 0.0], [1e-20, 0.0]]), margin=0.5)
    assert not project_against_all(gradient, torch.zeros(0, 2))
    assert not project_against_all([torch.zeros(2)], torch.ones(1, 2))
    assert torch.equal(gradient[0], torch.tensor([1.0, 2.0]))


def test_many_weights_are_summed_without_loss():
    generator = torch.Generator().manual_seed(7)
    gradient, memories = torch.randn(300_001, generator=generator), torch.randn(3, 300_001, generator=generator)
    memories -= gradient
    parts = [gradient[:100_000].clone(), gradient[100_000:].clone()]
    assert project_against_all(parts, memories.clone())
    assert min(cosine(joined(parts), memory) for memory in memories) >= -1e-6
    # an exact solution is at right angles to those that it moved along
    assert any(abs(cosine(joined(parts), memory)) < 1e-6 for memory in memories)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", SCALES)
def test_a_step_is_turned_so_that_it_raises_no_memory_s_loss(scale, dtype):
    generator = torch.Generator().manual_seed(0)
    n_changed = 0
    for _ in range(50):
        before = [piece.to(dtype) for piece in pieces(torch.randn(10, generator=generator))]
        weights = [w + torch.randn(w.shape, generator=generator).to(dtype) for w in before]
        taken = joined(weights).float() - joined(before).float()
        references = scale * torch.randn(2, 10, generator=generator)
        changed = project_step(
            weights, [w.float() for w in before], lambda turned, r=references: project_against_all(turned, r)
        )
        step = joined(weights).float() - joined(before).float()
        assert changed == (cosine(taken, references[0]) > 0 or cosine(taken, references[1]) > 0)
        assert changed or torch.equal(step, taken)
        assert max(cosine(step, one) for one in references) <= (1e-6 if dtype == torch.float32 else 1e-2)
        n_changed += changed
    assert 20 < n_changed < 50


def test_a_step_that_was_not_taken_moves_nothing():
    weights = [torch.randn(3, 4), torch.randn(5)]
    before = [w.clone() for w in weights]
    assert not project_step(weights, before, lambda turned: project_against(turned, [torch.ones(3, 4), torch.ones(5)]))
    assert not project_step(weights, before, lambda turned: project_against_all(turned, torch.ones(2, 17)))
    assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))
