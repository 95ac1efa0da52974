"""The endless corpus: document i depends on the seed, i and the progress alone."""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from everlearn.errors import ConfigError, describe, nearest
from everlearn.models.pocket.corpus import (
    arithmetic,
    causes,
    copying,
    facts,
    ordering,
    puzzles,
    recall,
    sentences,
    sequences,
    stories,
)
from everlearn.models.pocket.corpus.formats import BARE, PLAIN, Format, draw_format
from everlearn.models.pocket.corpus.item import Item
from everlearn.seeds import seed_for

FAMILIES: dict[str, Callable[[Random, int], Item]] = {
    "arithmetic": arithmetic.draw,
    "stories": stories.draw,
    "ordering": ordering.draw,
    "sequences": sequences.draw,
    "causes": causes.draw,
    "puzzles": puzzles.draw,
    "facts": facts.draw,
    "copying": copying.draw,
    "sentences": sentences.draw,
    "recall": recall.draw,
}
SHARES = {
    "arithmetic": 0.18,
    "stories": 0.12,
    "ordering": 0.14,
    "sequences": 0.13,
    "causes": 0.10,
    "puzzles": 0.10,
    "facts": 0.05,
    "copying": 0.02,
    "sentences": 0.01,
    "recall": 0.15,
}
# Looking things up is learned late or never in the full mix, and within a million tokens where nothing else is asked.
# So training opens with pairs in one phrasing, goes on with all drills of memory, and levels and phrasings grow from
# there on.
PAIRS = 0.035  # shares of training
OPENING = 0.09
N_LEVELS = 5
ALL_LEVELS_AT = 0.45  # the share of training after which all levels come equally often
ALL_PHRASINGS_AT = 0.55  # the share of training after which every choice is open
FIRST_PHRASINGS = 0.3  # the share of each choice's alternatives that is open until OPENING
SEVERAL = 0.12  # the share of documents that show two or three items in one format
FOLLOWED = 0.4  # the share of items with follow-up questions that ask them; in the opening, all do

T = TypeVar("T")
Document = list[tuple[str, str]]  # (prompt, completion) pairs, one after another


class Narrow(Random):
    """A random source whose `choice` among fixed phrasings (tuples) takes one of the first `open_share` of them."""

    open_share = 1.0

    def choice(self, seq: Sequence[T]) -> T:
        """Return one of the open phrasings, or one of a list, which is an item's own words."""
        n_open = max(1, math.ceil(self.open_share * len(seq))) if isinstance(seq, tuple) else len(seq)
        return super().choice(seq[:n_open])


def draw_level(rng: Random, progress: float) -> int:
    """Return a level from 1 to 5: easy ones first, all equally often from `ALL_LEVELS_AT` on."""
    return min(N_LEVELS, int(1 + rng.random() * _grown(2, N_LEVELS, ALL_LEVELS_AT, progress)))


def _grown(first: float, last: float, until: float, progress: float) -> float:
    """Return `first` while training opens, `last` from the share `until` of training on, a line between."""
    way = (progress - OPENING) / (until - OPENING)
    return first + (last - first) * min(1.0, max(0.0, way))


def sample(family: str, rng: Random, progress: float = 1.0, shape: Format | None = None) -> tuple[str, str]:
    """Return one (prompt, completion) of a family in a drawn format, or in `shape`.

    Raises:
        ConfigError: if there is no such family.
    """
    if family not in FAMILIES:
        way_out = f"{nearest(family, FAMILIES)}Known: {', '.join(FAMILIES)}"
        raise ConfigError(describe("corpus", "unknown family", family, way_out))
    item = FAMILIES[family](rng, draw_level(rng, progress))
    shape = shape or draw_format(rng, steps=bool(item.steps))
    return shape.prompt(item), shape.completion(item)


def document(seed: int, index: int, progress: float = 1.0, split: str = "train") -> Document:
    """Return document number `index`: one item, an item with follow-up questions, or a few items in one format."""
    rng = Narrow(seed_for("pocket", seed, split, index))
    if progress < PAIRS:
        item = recall.draw_pairs(rng)
        return _ask(BARE, [item, *_follow_ups(item)], "\n ")
    rng.open_share = _grown(FIRST_PHRASINGS, 1.0, ALL_PHRASINGS_AT, progress)
    if progress < OPENING:
        item = recall.draw(rng, draw_level(rng, progress))
        return _ask(PLAIN, [item, *_follow_ups(item)], "\n")
    family = rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]
    draw, gap = FAMILIES[family], rng.choice(("\n", "\n\n"))
    if rng.random() < SEVERAL:
        shape = draw_format(rng, repeated=True)
        return _ask(shape, [draw(rng, draw_level(rng, progress)) for _ in range(rng.randint(2, 3))], gap)
    item = draw(rng, draw_level(rng, progress))
    items = [item, *(_follow_ups(item) if rng.random() < FOLLOWED else ())]
    return _ask(draw_format(rng, steps=bool(item.steps)), items, gap)


def _follow_ups(item: Item) -> list[Item]:
    return [Item(question, answer) for question, answer in item.more]


def _ask(shape: Format, items: list[Item], gap: str) -> Document:
    pairs = [(shape.prompt(item), shape.completion(item)) for item in items]
    return [pairs[0], *((gap + prompt, completion) for prompt, completion in pairs[1:])]


def text_of(pairs: Document) -> str:
    """Return a document as one text."""
    return "".join(prompt + completion for prompt, completion in pairs)
