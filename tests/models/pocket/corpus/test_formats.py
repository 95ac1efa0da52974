from random import Random

from everlearn.models.pocket.corpus.formats import STEP_WISHES, WISHES, WRAPPERS, Format, draw_format
from everlearn.models.pocket.corpus.item import Item


def test_a_wrapper_in_a_single_item_is_asked_for():
    rng, wrapped = Random(0), 0
    for _ in range(3000):
        shape = draw_format(rng)
        if shape.wrapper != "{answer}":
            assert shape.wish == WISHES[WRAPPERS.index(shape.wrapper)]
            wrapped += 1
    assert 90 < wrapped < 240


def test_steps_are_shown_only_when_wished_for():
    item = Item("what is 1 + 2 + 3?", "6", steps="1 + 2 = 3; 3 + 3 = 6")
    assert Format("{question}\n{cue}", "->").completion(item) == " 6"
    shown = Format("{question}\n{cue}", "->", wish=STEP_WISHES[0])
    assert shown.prompt(item) == "What is 1 + 2 + 3? Show the steps.\n->"
    assert shown.completion(item) == " 1 + 2 = 3; 3 + 3 = 6; 6"
