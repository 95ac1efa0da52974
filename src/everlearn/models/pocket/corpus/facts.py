"""Questions about a handful of facts: look one up, count, find the odd one."""

from random import Random

from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.words import (
    COLORS,
    NAMES,
    NUMBER_WORDS,
    PETS,
    PLACES,
    THINGS,
    article,
    capital,
    plural,
)

FACTS = (
    "{name} has {color_thing}.",
    "{name} holds {color_thing}.",
    "In the bag of {name} is {color_thing}.",
    "{name} brought {color_thing}.",
    "{name} carries {color_thing}.",
    "{name}: {color_thing}.",
)
WHO = ("Who has the {thing}?", "The {thing} is with whom?", "Whose is the {thing}?", "Find the owner of the {thing}.")
WHAT = ("What does {name} have?", "Name the thing of {name}.", "Which thing is with {name}?")
SHADE = ("What color is the {thing}?", "Which color has the {thing} of {name}?", "The color of the thing of {name}?")
TALLY = ("How many things are {color}?", "Count the {color} things.", "How many {color} ones are there?")
PLACE = ("{name} is in the {place}.", "{name} went to the {place}.", "You find {name} in the {place}.")
WHERE = ("Where is {name}?", "In which place is {name} now?", "Find {name}.")
STOCK = ("There are {n} {things} and {m} {others}.", "The box holds {n} {things} and {m} {others}.")
AMOUNT = ("How many {things}?", "How many {others} are there?", "How many {things} and {others} together?")
TEMPLATES = FACTS + WHO + WHAT + SHADE + TALLY + PLACE + WHERE + STOCK + AMOUNT


def draw(rng: Random, level: int) -> Item:
    """Return one question; the number of facts grows with `level`."""
    n = rng.randint(2, 2 + level)
    kind = rng.random()
    if kind < 0.25:
        return _places(rng, n)
    if kind < 0.4:
        return _stock(rng, level)
    names, things = rng.sample(NAMES, n), rng.sample(THINGS, n)
    colors = [rng.choice(COLORS) for _ in range(n)]
    template = rng.choice(FACTS)
    rows = [
        template.format(name=name, color_thing=article(f"{color} {thing}"))
        for name, color, thing in zip(names, colors, things, strict=True)
    ]
    text, i = " ".join(rows), rng.randrange(n)
    words = {"name": names[i], "thing": things[i], "color": colors[i]}
    if kind < 0.55:
        return Item(f"{text} {rng.choice(WHO).format(**words)}", names[i])
    if kind < 0.7:
        return Item(f"{text} {rng.choice(WHAT).format(**words)}", things[i])
    if kind < 0.85:
        return Item(f"{text} {rng.choice(SHADE).format(**words)}", colors[i])
    return Item(f"{text} {rng.choice(TALLY).format(**words)}", str(colors.count(colors[i])))


def _places(rng: Random, n: int) -> Item:
    """People move about; the last place counts."""
    names, template = rng.sample(NAMES + PETS, n), rng.choice(PLACE)
    at, rows = {}, []
    for i in range(n + rng.randint(0, 2)):
        name = names[i] if i < n else rng.choice(names)
        at[name] = rng.choice(PLACES)
        rows.append(capital(template.format(name=name, place=at[name])))
    name = rng.choice(names)
    return Item(f"{' '.join(rows)} {rng.choice(WHERE).format(name=name)}", at[name])


def _stock(rng: Random, level: int) -> Item:
    n, m = rng.randint(1, 4 * level + 5), rng.randint(1, 4 * level + 5)
    thing, other = rng.sample(THINGS, 2)
    words = {"n": n, "m": m, "things": plural(thing), "others": plural(other)}
    k = rng.randrange(3)
    if max(n, m) <= 20 and rng.random() < 0.2:
        words |= {"n": NUMBER_WORDS[n], "m": NUMBER_WORDS[m]}
    return Item(f"{rng.choice(STOCK).format(**words)} {AMOUNT[k].format(**words)}", str((n, m, n + m)[k]))
