"""The solver's worlds and clues against counting by hand."""

import random

import pytest

from everlearn.streams.arena.solver import enough, remaining, true_clues, worlds


@pytest.mark.parametrize(("shape", "n_worlds"), [((3, 1), 6), ((4, 1), 24), ((4, 2), 576)])
def test_worlds_are_all_assignments_and_the_first_is_the_identity(shape, n_worlds):
    found = worlds(*shape)
    assert len(set(found)) == n_worlds
    assert found[0] == (tuple(range(shape[0])),) * shape[1]


def test_one_clue_leaves_the_share_of_worlds_that_it_should():
    known = true_clues(4, 2)
    shares = {kind: {clue.mask.bit_count() / 576 for clue in clues} for kind, clues in known.items()}
    assert shares == {"is": {1 / 4}, "not": {3 / 4}, "either": {1 / 2}, "link": {1 / 4}, "unlink": {3 / 4}}


def test_every_clue_holds_in_the_solution():
    for shape in ((3, 1), (4, 1), (4, 2)):
        assert all(clue.mask & 1 for clues in true_clues(*shape).values() for clue in clues)


def test_enough_leaves_one_solution_and_nothing_to_spare():
    rng = random.Random(0)
    known = true_clues(4, 2)
    candidates = [*known["not"], *known["either"], *known["unlink"]]
    for _ in range(20):
        rng.shuffle(candidates)
        clues = enough(candidates, 4, 2)
        assert remaining(clues, 4, 2) == 1
        for clue in clues:
            assert remaining([kept for kept in clues if kept is not clue], 4, 2) != 1


def test_no_clue_leaves_every_world():
    assert remaining([], 3, 1) == 0b111111
