import itertools
import re
from random import Random

from everlearn.models.pocket.corpus import causes

NAME = r"[A-Z][a-z]+"
PHRASES = [
    (re.compile(side.replace("{name}", NAME), re.IGNORECASE), number, holds)
    for number, event in enumerate(causes.EVENTS)
    for holds, side in ((True, event[0]), (False, event[1]))
]


def literals(text):
    """Read (event, holds) in the order in which they stand."""
    found = [(m.start(), number, holds) for pattern, number, holds in PHRASES for m in pattern.finditer(text)]
    return [(number, holds) for _, number, holds in sorted(found)]


def entailed(rules, seen, asked):
    """0: always so, 1: never so, 2: open; by trying every state of the world."""
    events = sorted({number for rule in rules for number, _ in rule} | {seen[0], asked[0]})
    values = set()
    for states in itertools.product((True, False), repeat=len(events)):
        world = dict(zip(events, states, strict=True))
        if world[seen[0]] != seen[1]:
            continue
        if all(world[q[0]] == q[1] or world[p[0]] != p[1] for p, q in rules):
            values.add(world[asked[0]] == asked[1])
    return {(True,): 0, (False,): 1}.get(tuple(values), 2)


def judged(rng, level):
    while True:
        item = causes.draw(rng, level)
        words = next((v for v in causes.VERDICTS if item.answer in v and v[2] in item.question), None)
        if item.question.startswith("If ") and " then " in item.question and words:
            return item, words


def test_verdicts_agree_with_every_world():
    rng, counts = Random(0), [0, 0, 0]
    for n in range(400):
        item, words = judged(rng, 1 + n % 4)
        rules = [tuple(literals(rule)) for rule in re.findall(r"If [^.]+ then [^.]+\.", item.question)]
        seen, asked = literals(re.sub(r"If [^.]+ then [^.]+\.", "", item.question))[:2]
        verdict = entailed(rules, seen, asked)
        answers = {v[verdict] for v in causes.VERDICTS if item.answer in v and v[2] == words[2]}
        assert item.answer in answers, item
        counts[verdict] += 1
    assert min(counts) > 100


def test_all_the_events_have_a_denial():
    for positive, negative in causes.EVENTS:
        assert positive != negative
        assert " not " in negative
