"""Words and lists of words."""

import random
from collections import Counter

from everlearn.streams.arena.vocabulary import COLOURS, NAMES, THINGS, in_any_order, listing


def test_listing():
    assert listing(["a"]) == "a"
    assert listing(["a", "b"]) == "a and b"
    assert listing(["a", "b", "c"]) == "a, b and c"


def test_words_are_single_and_belong_to_one_list():
    words = [*NAMES, *THINGS, *COLOURS]
    assert len(set(words)) == len(words)
    assert all(word.isalpha() for word in words)


def test_every_order_is_equally_likely():
    rng = random.Random(0)
    drawn = Counter("".join(in_any_order(rng, "abcd")) for _ in range(24 * 400))
    assert len(drawn) == 24
    assert all(abs(count / 400 - 1) < 0.2 for count in drawn.values())
    assert sorted(in_any_order(rng, (3, 1, 2, 5, 4))) == [1, 2, 3, 4, 5]
