import re
from random import Random

from everlearn.models.pocket.corpus import copying


def test_rows_are_copied_turned_and_counted():
    rng, kinds = Random(0), set()
    for _ in range(3000):
        item = copying.draw(rng, 3)
        head, _, row = item.question.partition(": ")
        terms = re.split(r",? ", row)
        if head == "Repeat":
            assert item.answer == row
        elif head == "Reverse":
            assert re.split(r",? ", item.answer) == terms[::-1]
        elif head == "Count these":
            assert item.answer == str(len(terms))
        elif head == "Find the double":
            assert terms.count(item.answer) == 2
        else:
            continue
        kinds.add(head)
    assert kinds == {"Repeat", "Reverse", "Count these", "Find the double"}


def test_words_are_picked_by_place():
    rng, n_checked = Random(1), 0
    for _ in range(2000):
        item = copying.draw(rng, 4)
        if found := re.match(r"Take word number (\d) of (.+)\.$", item.question):
            assert re.split(r",? ", found[2])[int(found[1]) - 1] == item.answer
            n_checked += 1
    assert n_checked > 20
