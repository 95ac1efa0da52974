import re
from random import Random

from everlearn.models.pocket.corpus import facts


def test_counts_and_lookups():
    rng, n_checked = Random(0), 0
    for _ in range(4000):
        item = facts.draw(rng, 4)
        rows = re.findall(r"(\w+) holds an? (\w+) (\w+)\.", item.question)
        if not rows:
            continue
        n_checked += 1
        if asked := re.search(r"How many things are (\w+)\?$", item.question):
            assert int(item.answer) == sum(color == asked[1] for _, color, _ in rows)
        if asked := re.search(r"Who has the (\w+)\?$", item.question):
            assert item.answer == next(name for name, _, thing in rows if thing == asked[1])
        if asked := re.search(r"What does (\w+) have\?$", item.question):
            assert item.answer == next(thing for name, _, thing in rows if name == asked[1])
    assert n_checked > 200


def test_the_last_place_counts():
    rng, n_checked = Random(1), 0
    for _ in range(2000):
        item = facts.draw(rng, 5)
        moves = re.findall(r"(\w+) went to the (\w+)\.", item.question)
        if moves and (asked := re.search(r"Where is (\w+)\?$", item.question)):
            assert item.answer == {name.lower(): place for name, place in moves}[asked[1].lower()]
            n_checked += 1
    assert n_checked > 40
