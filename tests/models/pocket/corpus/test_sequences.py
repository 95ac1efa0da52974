import itertools
from random import Random

import pytest

from everlearn.models.pocket.corpus import sequences


def rows(kind, level, n=6):
    rng = Random(level)
    return [sequences.row_of(rng, kind, level, n) for _ in range(300)]


@pytest.mark.parametrize("level", [1, 3, 5])
def test_rows_keep_their_rule(level):
    for row in rows("plain", level):
        assert len({b - a for a, b in itertools.pairwise(row)}) == 1
    for row in rows("times", level):
        low, high = sorted(row[:2])
        assert all(max(a, b) * low == min(a, b) * high for a, b in itertools.pairwise(row))
    for row in rows("fibonacci", level):
        assert all(a + b == c for a, b, c in zip(row, row[1:], row[2:], strict=False))
    for row in rows("alternate", level):
        steps = [b - a for a, b in itertools.pairwise(row)]
        skips = [b - a for a, b in zip(row, row[2:], strict=False)]
        assert len(set(steps[::2])) == len(set(steps[1::2])) == 1 or len(set(skips[::2])) == len(set(skips[1::2])) == 1
    for row in rows("grow", level):
        steps = [b - a for a, b in itertools.pairwise(row)]
        assert len({b - a for a, b in itertools.pairwise(steps)}) == 1
    assert all(min(row) >= 0 for kind in ("plain", "alternate") for row in rows(kind, level))


def test_a_hidden_term_fits_its_row():
    rng, n_checked = Random(0), 0
    for _ in range(3000):
        item = sequences.draw(rng, 2)
        if item.question.startswith("Fill the blank: ") and ", " in item.question:
            shown = item.question.removeprefix("Fill the blank: ").split(", ")
            row = [int(item.answer if term == "_" else term) for term in shown]
            steps = {b - a for a, b in itertools.pairwise(row)}
            if len(steps) == 1:
                n_checked += 1
            assert "_" in shown
    assert n_checked > 5
