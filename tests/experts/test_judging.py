"""Whether reuse would have been right."""

from everlearn.experts.judging import as_good


def test_an_expert_is_as_good_unless_the_other_is_better_by_more_than_margin_and_chance():
    right, wrong = [1.0] * 4, [0.0] * 4
    assert as_good(right, right, 0.02)
    assert as_good(right, wrong, 0.02)
    assert not as_good(wrong, right, 0.02)
    assert not as_good([0, 0, 0, 1], right, 0.02)
    assert as_good([0, 1, 1, 1], right, 0.02)  # one of four is chance
    assert not as_good([0] * 3 + [1] * 47, [1] * 50, 0.02)
    assert as_good([0] * 3 + [1] * 47, [1] * 50, 0.06)
    assert not as_good([-2.0, -3.0, -2.5], [-1.0, -1.5, -1.0], 0.02)
