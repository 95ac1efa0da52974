"""Words and lists of words."""

from everlearn.streams.arena.vocabulary import COLOURS, NAMES, THINGS, listing


def test_listing():
    assert listing(["a"]) == "a"
    assert listing(["a", "b"]) == "a and b"
    assert listing(["a", "b", "c"]) == "a, b and c"


def test_words_are_single_and_belong_to_one_list():
    words = [*NAMES, *THINGS, *COLOURS]
    assert len(set(words)) == len(words)
    assert all(word.isalpha() for word in words)
