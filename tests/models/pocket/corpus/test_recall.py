import re
from random import Random

from everlearn.models.pocket.corpus import recall


def test_every_key_of_a_table_is_asked_for_and_its_value_stands_in_it():
    rng = Random(0)
    for _ in range(200):
        item = recall._table(rng, 5)
        text = item.question.rsplit("\n", 1)[0]
        asked = [(item.question.rsplit("\n", 1)[1], item.answer), *item.more]
        assert len(asked) >= 2
        assert all(answer in text for _, answer in asked)
        assert len({question for question, _ in asked}) == len(asked)


def test_facts_are_asked_from_either_side():
    rng = Random(1)
    for _ in range(200):
        item = recall._facts(rng, 4)
        text = item.question.split("\n")[0]
        for question, answer in [(item.question.split("\n")[1], item.answer), *item.more]:
            told = next(part for part in re.split(r"[.;] ?", text) if re.search(rf"\b{answer}\b", part))
            other = set(re.findall(r"\w+", told)) & set(re.findall(r"\w+", question))
            assert other  # the question names the one who has it, or the thing
