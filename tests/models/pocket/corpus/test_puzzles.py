import re
from itertools import permutations
from random import Random

import pytest

from everlearn.models.pocket.corpus import puzzles, words


def clue_patterns(topic):
    person, thing = rf"({'|'.join(words.NAMES)})", rf"({'|'.join(topic[0])})\b"
    made = [form.replace("{p}", person).replace("{t}", thing) for form in topic[1:3]]
    return re.compile(made[0]), re.compile(made[1])


def solutions(text, topic):
    """Return all matches person -> thing that fit the clues read from the text."""
    people = sorted({name for name in words.NAMES if re.search(rf"\b{name}\b", text)})
    things = sorted({thing for thing in topic[0] if re.search(rf"\b{thing}\b", text, re.IGNORECASE)})
    has, lacks = clue_patterns(topic)
    either = re.compile(rf"{has.pattern},? or {has.pattern}")
    pairs = either.findall(text)
    sure = has.findall(either.sub("", text))
    found = []
    for order in permutations(things):
        match = dict(zip(people, order, strict=True))
        fits = all(match[p] == t for p, t in sure) and all(match[p] != t for p, t in lacks.findall(text))
        if fits and all(match[a] == s or match[b] == t for a, s, b, t in pairs):
            found.append(match)
    return found


@pytest.mark.parametrize("level", [1, 3, 5])
def test_the_clues_leave_the_answer_alone(level):
    rng, n_checked = Random(level), 0
    for _ in range(600):
        item = puzzles.draw(rng, level)
        for topic in puzzles.TOPICS:
            who = re.search(topic[3].replace("{t}", r"(\w+)").replace("?", r"\?$"), item.question)
            if who and item.answer in words.NAMES:
                found = solutions(item.question.removesuffix(who[0]), topic)
                assert len(found) == 1, item
                assert found[0][item.answer] == who[1]
                n_checked += 1
    assert n_checked > 150


def test_follow_up_questions_agree():
    rng = Random(5)
    for _ in range(200):
        item = puzzles.draw(rng, 3)
        lists = [answer for question, answer in item.more if question in puzzles.LISTS]
        for question, answer in item.more:
            if lists and question.startswith("So ") and answer:
                person = question.split()[1]
                assert f"{person} {answer}" in lists[0]
