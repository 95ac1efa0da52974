"""Simple English: what things are, opposites, and three-sentence stories."""

from random import Random

from everlearn.models.pocket.corpus import words as w
from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.words import article, capital

KINDS = {
    "animal": w.PETS,
    "color": w.COLORS,
    "drink": w.DRINKS,
    "sport": w.SPORTS,
    "job": w.JOBS,
    "fruit": w.FRUITS,
    "tool": w.TOOLS,
    "city": w.CITIES,
    "vehicle": w.VEHICLES,
    "day": w.DAYS,
    "name": w.NAMES,
}
OPPOSITES = (
    "big small,hot cold,old young,tall short,fast slow,light dark,happy sad,rich poor,strong weak,"
    "early late,full empty,open closed,high low,near far,good bad,first last,left right,up down,"
    "more less,most least,older younger,oldest youngest,taller shorter,true false,yes no,always never,"
    "same different,wet dry,clean dirty,loud quiet,day night,before after,above below,inside outside,"
    "best worst,win lose,buy sell,give take,known unknown,heavy light,top bottom,greater smaller,"
    "begin end,sweet sour,hard soft,long short,new old"
)
PAIRS = tuple(tuple(pair.split()) for pair in OPPOSITES.split(","))
WHAT = (
    "What kind of thing is {x}?",
    "{x} is which kind?",
    "Class of {x}",
    "Say what {x} is.",
    "{x}: what sort of word?",
)
IS_A = ("Is {x} {kind}?", "True or not: {x} is {kind}.", "Would you call {x} {kind}?", "{x} is {kind}. Agree?")
AGREE = (("yes", "no"), ("true", "false"), ("right", "wrong"), ("correct", "incorrect"))
AGREE_MENUS = (" ({a} or {b})", " Say {a} or {b}.", " {a}/{b}")
OPPOSITE = ("The opposite of {x}", "What is the opposite of {x}?", "Not {x} but ...", "{x} turned round is")
MEMBER = ("Which of {row} is {kind}?", "Pick the {bare} out of {row}.", "{row}: find the {bare}.")
STORY = (
    "{name} went to the {place}. There {friend} had {thing}. {name} liked the {bare}.",
    "One {day} {name} and {friend} met in the {place}. They saw {animal}. It was {color}.",
    "{name} is {job}. Every {day} {name} drinks {drink} with {friend}.",
    "The {animal_bare} of {name} sleeps in the {place}. {friend} gives it {thing}.",
    "{name} lives in {city} and plays {sport}. {friend} comes by {vehicle} on {day}.",
    "In the {place} stood {thing}. It was old and {color}. {name} gave it to {friend}.",
    "{name} is older and taller now. {friend} is the youngest and the smallest.",
)
STORY_ASKS = ("Who is in the story first?", "Name the first person.", "Who was named before {friend}?")
TEMPLATES = WHAT + IS_A + AGREE_MENUS + OPPOSITE + MEMBER + STORY + STORY_ASKS


def draw(rng: Random, level: int) -> Item:
    """Return one item about plain word knowledge (`level` changes nothing here)."""
    kind = rng.random()
    if kind < 0.2:
        word, other = rng.choice(PAIRS)[:: rng.choice((1, -1))]
        return Item(rng.choice(OPPOSITE).format(x=word), other)
    if kind < 0.45:
        return _story(rng)
    name = rng.choice(tuple(KINDS))
    thing = rng.choice(KINDS[name])
    if kind < 0.6:
        return Item(rng.choice(WHAT).format(x=thing), name)
    if kind < 0.8:
        claimed = name if rng.random() < 0.5 else rng.choice([key for key in KINDS if thing not in KINDS[key]])
        yes, no = rng.choice(AGREE)
        ask = rng.choice(IS_A).format(x=thing, kind=article(claimed)) + rng.choice(AGREE_MENUS).format(a=yes, b=no)
        return Item(capital(ask), yes if claimed == name or thing in KINDS[claimed] else no)
    others = [rng.choice(KINDS[key]) for key in rng.sample([key for key in KINDS if thing not in KINDS[key]], 3)]
    row = [thing, *(other for other in others if other not in KINDS[name])]
    rng.shuffle(row)
    return Item(rng.choice(MEMBER).format(row=", ".join(row), kind=article(name), bare=name), thing)


def _story(rng: Random) -> Item:
    name, friend = rng.sample(w.NAMES, 2)
    animal, thing = rng.choice(w.PETS), rng.choice(w.THINGS)
    text = rng.choice(STORY).format(
        name=name, friend=friend, place=rng.choice(w.PLACES), thing=article(thing), bare=thing,
        day=rng.choice(w.DAYS),
        animal=article(animal), animal_bare=animal, color=rng.choice(w.COLORS), job=article(rng.choice(w.JOBS)),
        drink=rng.choice(w.DRINKS), city=rng.choice(w.CITIES), sport=rng.choice(w.SPORTS),
        vehicle=rng.choice(w.VEHICLES),
    )  # fmt: skip
    return Item(f"{text} {rng.choice(STORY_ASKS).format(friend=friend)}", name)
