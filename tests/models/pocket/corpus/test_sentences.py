import re
from random import Random

from everlearn.models.pocket.corpus import sentences


def test_opposites_are_pairs():
    assert all(len(pair) == 2 and pair[0] != pair[1] for pair in sentences.PAIRS)


def test_yes_and_no_follow_the_kinds():
    rng, seen = Random(0), set()
    for _ in range(3000):
        item = sentences.draw(rng, 1)
        if found := re.match(r"Is (\w+) an? (\w+)\?", item.question):
            members = [word.lower() for word in sentences.KINDS[found[2]]]
            positive = item.answer in ("yes", "true", "right", "correct")
            assert positive == (found[1].lower() in members), item
            seen.add(positive)
    assert seen == {True, False}


def test_a_members_row_has_one_member():
    rng, n_checked = Random(1), 0
    for _ in range(2000):
        item = sentences.draw(rng, 1)
        if found := re.match(r"Pick the (\w+) out of (.+)\.$", item.question):
            assert [word for word in found[2].split(", ") if word in sentences.KINDS[found[1]]] == [item.answer]
            n_checked += 1
    assert n_checked > 20
