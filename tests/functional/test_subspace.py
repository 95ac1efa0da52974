import pytest
import torch

from everlearn.functional.subspace import (
    complement,
    leading_directions,
    new_directions,
    take_out,
    take_out_both,
    top_directions,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def identity(n):
    return torch.eye(n, dtype=torch.float64)


def test_what_is_taken_out_is_the_part_in_the_span():
    basis = torch.linalg.qr(random(6, 2)).Q
    change = random(4, 6, seed=1)
    left = take_out(change, basis)
    torch.testing.assert_close(left, change @ (torch.eye(6) - basis @ basis.T), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(left @ basis, torch.zeros(4, 2), rtol=0, atol=1e-6)
    assert torch.equal(take_out(change, basis[:, :0]), change)


@pytest.mark.parametrize("n_directions", [0, 2, 6])
def test_the_complement_is_all_the_rest(n_directions):
    basis = torch.linalg.qr(random(6, 6)).Q[:, :n_directions]
    rest = complement(basis)
    assert rest.shape == (6, 6 - n_directions)
    both = torch.cat([basis, rest], 1)
    torch.testing.assert_close(both.T @ both, torch.eye(6), rtol=0, atol=1e-5)
    change = random(4, 6, seed=1)
    torch.testing.assert_close(change @ rest @ rest.T, take_out(change, basis), rtol=1e-5, atol=1e-5)


def test_taken_out_on_both_sides_the_top_of_a_matrix_stays():
    for shape in ((8, 5), (5, 8), (6, 6)):
        weight, change = random(*shape), random(*shape, seed=1)
        left, right = top_directions(weight, 3)
        moved = weight + take_out_both(change, left, right)
        torch.testing.assert_close(left.T @ moved, left.T @ weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moved @ right, weight @ right, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(moved, weight)
        values = torch.linalg.svdvals(weight)
        torch.testing.assert_close((left.T @ weight @ right).diagonal(), values[:3], rtol=1e-4, atol=1e-5)


def test_new_directions_span_what_vectors_add_and_are_orthonormal():
    basis = torch.linalg.qr(random(20, 3)).Q.T
    vectors = torch.cat([random(4, 20, seed=1), 2 * basis[:1] - basis[1:2]])
    found = new_directions(vectors, basis, 10)
    assert found.shape == (4, 20)  # the fifth vector adds nothing
    both = torch.cat([basis, found])
    torch.testing.assert_close(both @ both.T, torch.eye(7), rtol=0, atol=1e-5)
    torch.testing.assert_close(take_out(vectors, both.T), torch.zeros(5, 20), rtol=0, atol=1e-5)


def test_the_first_new_directions_carry_the_most():
    vectors = random(6, 20) * torch.tensor([1.0, 5.0, 0.1, 30.0, 2.0, 0.5])[:, None]
    found = new_directions(vectors, vectors[:0], 2)
    _, _, wanted = torch.linalg.svd(vectors, full_matrices=False)
    torch.testing.assert_close((found @ wanted[:2].T).abs(), torch.eye(2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_new_directions_do_not_depend_on_scale_and_may_be_none(scale):
    vectors = random(3, 10)
    found = new_directions(scale * vectors, vectors[:0], 5)
    torch.testing.assert_close(found, new_directions(vectors, vectors[:0], 5), rtol=1e-3, atol=1e-4)
    assert new_directions(scale * vectors, found, 5).shape == (0, 10)
    assert new_directions(0 * vectors, found, 5).shape == (0, 10)
    assert new_directions(vectors[:0], found, 5).shape == (0, 10)
    assert new_directions(vectors, found[:1], 0).shape == (0, 10)
    assert new_directions(random(30, 10), vectors[:0], 50).shape == (10, 10)


def by_svd(inputs, basis, threshold):
    """Return the number of directions and the energy held, written as in the paper: inputs are columns [n, samples]."""
    rest = inputs - basis @ basis.T @ inputs
    sizes = torch.linalg.svdvals(rest) ** 2
    total = (inputs**2).sum()
    n, held = 0, total - sizes.sum()
    while held < threshold * total - 1e-9:
        held, n = held + sizes[n], n + 1
    return n, held


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.8, 0.97, 1.0])
def test_leading_directions_hold_the_share_of_energy_with_the_fewest(threshold):
    scales = torch.logspace(0, -2, 12, dtype=torch.float64)[:, None]
    basis = identity(12)[:, :0]
    for seed in range(3):
        inputs = torch.roll(scales, 3 * seed, 0) * random(12, 9, seed=seed).double()
        found = leading_directions(inputs @ inputs.T, basis, threshold)
        n, held = by_svd(inputs, basis, threshold)
        assert found.shape[1] == n
        both = torch.cat([basis, found], 1)
        torch.testing.assert_close(both.T @ both, identity(both.shape[1]), rtol=0, atol=1e-9)
        energy = ((both.T @ inputs) ** 2).sum()
        assert energy == pytest.approx(held.item())
        assert energy >= threshold * (inputs**2).sum() - 1e-9
        basis = both


def test_leading_directions_never_outnumber_the_inputs():
    basis = identity(3)[:, :0]
    for seed in range(4):
        inputs = random(3, 5, seed=seed).double()
        basis = torch.cat([basis, leading_directions(inputs @ inputs.T, basis, 1.0)], 1)
        assert basis.shape == (3, 3)
    assert leading_directions(torch.zeros(3, 3, dtype=torch.float64), identity(3)[:, :0], 0.9).shape == (3, 0)
