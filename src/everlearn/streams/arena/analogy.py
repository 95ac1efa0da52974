"""Analogies: the rule that makes the second of a pair from the first, found from examples and applied once more.

Item 0 of seed 0, difficulty 1, split "train":

    old is to young. What is open to, then? It is one of quiet, young and closed.
    Answer:

Its answer: closed
"""

import random
from collections.abc import Callable
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.vocabulary import in_any_order, listing

TEMPLATES = (
    "{shown}. In the same way, {asked} is to what?{options}",
    "Complete the analogy. {shown}, as {asked} is to ...{options}",
    "One rule makes all pairs. {shown}. And {asked} is to what, by this rule?{options}",
    "{shown}. What is {asked} to, then?{options}",
)
EXAMPLE = "{a} is to {b}"
OPTIONS = " It is one of {options}."
RELATIONS = {  # how a second word comes from a first; each second word with all that it comes from
    "{a} is a sort of {b}": (
        "fruit apple cherry grape lemon mango melon peach pear plum, tool drill hammer rake saw shovel spade wrench, "
        "bird crow duck eagle gull owl robin sparrow swan, fish carp cod herring salmon trout tuna, "
        "metal brass copper gold lead silver tin zinc, colour black blue brown green pink red white yellow, "
        "drink cocoa coffee juice milk tea water, furniture bed bench chair desk shelf sofa table, "
        "clothing coat dress glove hat scarf shirt sock, vehicle bike boat bus car train tram truck"
    ),
    "a young {a} is a {b}": (
        "puppy dog, kitten cat, calf cow, foal horse, lamb sheep, chick hen, duckling duck, gosling goose, kid goat, "
        "fawn deer, tadpole frog, cygnet swan, owlet owl, piglet pig, joey kangaroo, cub lion"
    ),
    "{b} is the opposite of {a}": (
        "small big, cold hot, young old, short tall, slow fast, dark light, sad happy, poor rich, weak strong, "
        "late early, empty full, closed open, far near, wet dry, quiet loud, soft hard, narrow wide, shallow deep"
    ),
    "{a}s work with {b}": (
        "flour baker, wood carpenter, clay potter, wool knitter, soil gardener, paint painter, iron smith, "
        "leather saddler, bricks mason, pipes plumber, wires electrician, teeth dentist, hair barber, books librarian"
    ),
    "{b} is the capital of {a}": (
        "Paris France, Rome Italy, Oslo Norway, Cairo Egypt, Lima Peru, Tokyo Japan, Berlin Germany, Madrid Spain, "
        "Vienna Austria, Dublin Ireland, Athens Greece, Lisbon Portugal, Warsaw Poland, Ottawa Canada, Quito Ecuador"
    ),
}
WORDS = tuple((rule, tuple(entry.split() for entry in entries.split(", "))) for rule, entries in RELATIONS.items())
TURNS: dict[str, Callable[[str], str]] = {
    "{a} backwards is {b}": lambda text: text[::-1],
    "the first letter of {a} goes to the end: {b}": lambda text: text[1:] + text[0],
    "the last letter of {a} goes to the front: {b}": lambda text: text[-1] + text[:-1],
}
HALVES = "abcdefghijklm", "nopqrstuvwxyz"  # letters of one half can move by 12 towards the other without its end

Pair = tuple[str, str]
Drawn = tuple[
    str, list[Pair], tuple[str, ...]
]  # the rule, the pairs that it makes (the last is asked), what is offered


def words(rng: random.Random, size: int) -> Drawn:
    """Two pairs of words in one relation; with those of other pairs, 2 + `size` second words are offered."""
    rule, entries = rng.choice(WORDS)
    chosen = rng.sample(entries, 2 + size)
    pairs = [(rng.choice(firsts), second) for second, *firsts in chosen[:2]]
    return rule, pairs, tuple(sorted(second for second, *_ in chosen))


def added(rng: random.Random, size: int) -> Drawn:
    """Three pairs of numbers that differ by the same."""
    step = rng.randint(1, 5 * size)
    low = [(str(start), str(start + step)) for start in rng.sample(range(1, 20 * size), 3)]
    if rng.random() < 0.5:
        return f"{{a}} + {step} = {{b}}", low, ()
    return f"{{a}} - {step} = {{b}}", [pair[::-1] for pair in low], ()


def scaled(rng: random.Random, size: int) -> Drawn:
    """Three pairs of numbers by the same factor."""
    factor = rng.randint(2, 3 + size)
    low = [(str(start), str(start * factor)) for start in rng.sample(range(1, 10 * size), 3)]
    if rng.random() < 0.5:
        return f"{{a}} * {factor} = {{b}}", low, ()
    return f"{{a}} / {factor} = {{b}}", [pair[::-1] for pair in low], ()


def affine(rng: random.Random, size: int) -> Drawn:
    """Three pairs of numbers by the same factor and constant."""
    factor, constant = rng.randint(2, 5), rng.randint(1, 4 * size)
    pairs = [(str(start), str(start * factor + constant)) for start in rng.sample(range(1, 4 * size), 3)]
    return f"{{a}} * {factor} + {constant} = {{b}}", pairs, ()


def moved(rng: random.Random, size: int) -> Drawn:
    """Two pairs of three letters, each letter moved by the same in the alphabet."""
    step, letters = _step(rng, size)
    firsts = [_text(rng, letters, 3) for _ in range(2)]
    return f"each letter of {{a}} moves by {step}: {{b}}", [(first, _move(first, step)) for first in firsts], ()


def turned(rng: random.Random, size: int) -> Drawn:
    """Two pairs of 2 + `size` letters in a changed order."""
    rule, turn = rng.choice(tuple(TURNS.items()))
    firsts = [_text(rng, HALVES[0], 2 + size) for _ in range(2)]
    return rule, [(first, turn(first)) for first in firsts], ()


def turned_and_moved(rng: random.Random, size: int) -> Drawn:
    """Two pairs of four letters in a changed order, each letter then moved by the same."""
    rule, turn = rng.choice(tuple(TURNS.items()))
    step, letters = _step(rng, size)
    firsts = [_text(rng, letters, 4) for _ in range(2)]
    pairs = [(first, _move(turn(first), step)) for first in firsts]
    return f"{rule}, once each letter has moved by {step}", pairs, ()


def labelled(rng: random.Random, size: int) -> Drawn:
    """Three pairs of a letter and a number, both moved by the same."""
    step, letters = _step(rng, size)
    more, numbers = rng.randint(1, 4 * size), rng.sample(range(1, 10 * size), 3)
    pairs = [
        (f"{letter}{number}", f"{_move(letter, step)}{number + more}")
        for letter, number in zip(rng.sample(letters, 3), numbers, strict=True)
    ]
    return f"from {{a}} the letter moves by {step} and the number grows by {more}: {{b}}", pairs, ()


Family = Callable[[random.Random, int], Drawn]
FAMILIES: dict[int, tuple[Family, ...]] = {
    1: (words, added),
    2: (words, added, scaled, moved),
    3: (words, scaled, moved, turned),
    4: (affine, turned, labelled),
    5: (affine, turned_and_moved, labelled),
}
SIZES = {1: 1, 2: 2, 3: 3, 4: 3, 5: 5}


@register("problem", "analogy")
class Analogy(NamedTuple):
    """Pairs by one rule, the last of which is asked for; and the words that are offered, where it is a word.

    Difficulty chooses the families of rules (words and sums; factors and moved letters; changed orders; factor and
    constant, labels; orders of moved letters) and the size of the numbers and steps. Numbers come with two examples,
    through which one line goes. Letters stand in one half of the alphabet, none twice, so that no second of these rules
    fits; of the words that are offered one stands in the relation.

    The same item: the same examples and the same asked for, whatever the wording and what else is offered.
    """

    difficulty: int
    rule: str
    pairs: tuple[Pair, ...]
    offered: tuple[str, ...]

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw a family and its pairs."""
        rule, pairs, offered = rng.choice(FAMILIES[difficulty])(rng, SIZES[difficulty])
        return cls(difficulty, rule, tuple(pairs), offered)

    def content(self) -> str:
        """Return the examples in alphabetical order, then what is asked for."""
        *examples, asked = (f"{first}:{second}" for first, second in self.pairs)
        return " ".join((*sorted(examples), asked))

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Show all pairs but the last, and of that the first part."""
        *examples, (asked, answer) = self.pairs
        options = OPTIONS.format(options=listing(in_any_order(rng, self.offered))) if self.offered else ""
        body = rng.choice(TEMPLATES).format(
            shown=" and ".join(EXAMPLE.format(a=first, b=second) for first, second in examples),
            asked=asked,
            options=options,
        )
        return Problem(
            type="analogy",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=answer,
            choices=self.offered,
            explanation="; ".join(self.rule.format(a=first, b=second) for first, second in self.pairs),
            content=content,
        )


def _step(rng: random.Random, size: int) -> tuple[int, str]:
    """Draw a step of up to 2 + `size` letters to either side, and return with it the letters that have room for it."""
    step = rng.randint(1, 2 + size)
    return (step, HALVES[0]) if rng.random() < 0.5 else (-step, HALVES[1])


def _text(rng: random.Random, letters: str, length: int) -> str:
    return "".join(rng.sample(letters, length))


def _move(text: str, step: int) -> str:
    return "".join([chr(ord(letter) + step) for letter in text])
