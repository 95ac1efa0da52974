import re
from random import Random

import pytest

from everlearn.models.pocket.corpus import ordering, words

NOUNS = "|".join(words.PETS + words.FRUITS + words.VEHICLES + words.JOBS)
BEING = rf"\b(?:[Tt]he (?:(?:{'|'.join(words.COLORS)}) )?(?:{NOUNS})|{'|'.join(words.NAMES)})\b"


def facts_in(text, scale):
    """Read (higher, lower) pairs from the sentences of one scale."""
    pairs = set()
    for forms, swap in ((scale.over, False), (scale.under, True)):
        for form in forms:
            pattern = re.escape(form).replace(r"\{a\}", f"({BEING})").replace(r"\{b\}", f"({BEING})")
            for a, b in re.findall(pattern, text):
                a, b = a.lower(), b.lower()
                pairs.add((b, a) if swap else (a, b))
    return pairs


def order_of(pairs):
    """Sort by how many stand below: with a chain of facts there is only one order."""
    below = {}
    beings = {being for pair in pairs for being in pair}
    for being in beings:
        seen, front = set(), {being}
        while front:
            front = {low for high, low in pairs if high in front} - seen
            seen |= front
        below[being] = len(seen)
    assert sorted(below.values()) == list(range(len(beings))), "the order is not unique"
    return sorted(beings, key=below.get, reverse=True)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_top_and_the_bottom_follow_from_the_facts(level):
    rng, n_checked = Random(level), 0
    for _ in range(1500):
        item = ordering.draw(rng, level)
        for scale in ordering.SCALES:
            for asked, place in ((scale.top, 0), (scale.bottom, -1)):
                for question in (f"Who is the {asked}?", f"Name the {asked} one.", f"Find the {asked} of them."):
                    if scale.top == "first" or not item.question.endswith(question):
                        continue
                    pairs = facts_in(item.question, scale)
                    if pairs:
                        assert order_of(pairs)[place] == item.answer.lower(), item
                        n_checked += 1
    assert n_checked > 80


def test_a_list_is_the_whole_order():
    rng, n_checked = Random(0), 0
    for _ in range(2000):
        item = ordering.draw(rng, 4)
        for scale in ordering.SCALES:
            if item.question.endswith(f"Sort them: {scale.top} to {scale.bottom}.") and ", " in item.answer:
                pairs = facts_in(item.question, scale)
                if not pairs:
                    continue  # another scale ends in the same words
                given = re.split(", | and ", item.answer.lower())
                assert given == order_of(pairs), item
                n_checked += 1
    assert n_checked > 10


def test_the_answer_is_not_given_away_by_where_it_stands():
    rng, first, n = Random(0), 0, 0
    for _ in range(3000):
        item = ordering.draw(rng, 5)
        names = re.findall(BEING, item.question)
        if item.answer in ordering.NAMES:
            chain = [name for name in names if name in ordering.NAMES]
            first += chain[0] == item.answer
            n += 1
    assert first / n < 0.33
