"""The endless corpus: document i depends on the seed, i and the progress alone."""

from collections.abc import Callable
from random import Random

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
from everlearn.models.pocket.corpus.formats import Format, draw_format
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
    "arithmetic": 0.22,
    "stories": 0.16,
    "ordering": 0.23,
    "sequences": 0.17,
    "causes": 0.07,
    "puzzles": 0.08,
    "facts": 0.02,
    "copying": 0.03,
    "sentences": 0.02,
    "recall": 0.06,
}
# parts of training (from, until) that show a few families alone: looking things up is learned late or never in the mix
DRILLS = (
    (0.665, 0.73, {"recall": 1.0}),
    (0.755, 0.82, {"ordering": 0.6, "puzzles": 0.15, "recall": 0.25}),
)
DRILL_LEVEL = 0.15  # drills draw their levels as if training stood here
N_LEVELS = 5
FULL_AT = 0.35  # the share of training after which all levels come equally often
SEVERAL = 0.12  # the share of documents that show two or three items in one format

FOLLOWED = 0.35  # the share of items with follow-up questions that ask them

Document = list[tuple[str, str]]  # (prompt, completion) pairs, one after another


def draw_level(rng: Random, progress: float) -> int:
    """Return a level from 1 to 5: easy ones first, all equally often from `FULL_AT` on."""
    top = 2 + (N_LEVELS - 2) * min(1.0, max(0.0, progress) / FULL_AT)
    return min(N_LEVELS, int(1 + rng.random() * top))


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
    rng = Random(seed_for("pocket", seed, split, index))
    shares = SHARES
    for first, last, chosen in DRILLS:
        if first <= progress < last:
            shares, progress = chosen, DRILL_LEVEL
            break
    family = rng.choices(tuple(shares), tuple(shares.values()))[0]
    draw, gap = FAMILIES[family], rng.choice(("\n", "\n\n"))
    if rng.random() < SEVERAL:
        shape = draw_format(rng, repeated=True)
        items = [draw(rng, draw_level(rng, progress)) for _ in range(rng.randint(2, 3))]
    else:
        item = draw(rng, draw_level(rng, progress))
        shape, items = draw_format(rng, steps=bool(item.steps)), [item]
        if item.more and rng.random() < FOLLOWED:
            items += [Item(question, answer) for question, answer in item.more]
    pairs = [(shape.prompt(item), shape.completion(item)) for item in items]
    return [pairs[0], *((gap + prompt, completion) for prompt, completion in pairs[1:])]


def text_of(pairs: Document) -> str:
    """Return a document as one text."""
    return "".join(prompt + completion for prompt, completion in pairs)
