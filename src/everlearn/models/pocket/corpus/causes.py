"""If-then reasoning: what follows, what is ruled out, and what stays open."""

from itertools import pairwise
from random import Random

from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.words import NAMES, capital, joined

# each event: how it reads when it is so, and when it is not
EVENTS = (
    ("it rains", "it does not rain"),
    ("the road is wet", "the road is not wet"),
    ("the sun shines", "the sun does not shine"),
    ("the wind blows", "the wind does not blow"),
    ("the snow melts", "the snow does not melt"),
    ("the river rises", "the river does not rise"),
    ("the bridge is closed", "the bridge is not closed"),
    ("the bell rings", "the bell does not ring"),
    ("the light is on", "the light is not on"),
    ("the door opens", "the door does not open"),
    ("the dog barks", "the dog does not bark"),
    ("the cat wakes up", "the cat does not wake up"),
    ("the baby cries", "the baby does not cry"),
    ("the milk boils", "the milk does not boil"),
    ("the cake burns", "the cake does not burn"),
    ("the alarm sounds", "the alarm does not sound"),
    ("the train is late", "the train is not late"),
    ("the shop is open", "the shop is not open"),
    ("the engine starts", "the engine does not start"),
    ("the pump works", "the pump does not work"),
    ("the plants grow", "the plants do not grow"),
    ("the ice breaks", "the ice does not break"),
    ("the phone is charged", "the phone is not charged"),
    ("the game is cancelled", "the game is not cancelled"),
    ("the grass is green", "the grass is not green"),
    ("the kettle is hot", "the kettle is not hot"),
    ("{name} is at home", "{name} is not at home"),
    ("{name} is happy", "{name} is not happy"),
    ("{name} studies", "{name} does not study"),
    ("{name} passes the test", "{name} does not pass the test"),
    ("{name} takes the bus", "{name} does not take the bus"),
    ("{name} is tired", "{name} is not tired"),
    ("{name} sleeps well", "{name} does not sleep well"),
    ("{name} eats lunch", "{name} does not eat lunch"),
)
RULES = (
    "If {p} then {q}.",
    "Once {p}, {q}.",
    "Whenever {p} we find that {q}.",
    "When {p} then also {q}.",
    "If {p} we know that {q}.",
    "In case {p}, {q}.",
    "Every time {p}, {q}.",
    "{q} if {p}.",
    "It always holds: if {p}, {q}.",
    "{p} means {q}.",
    "As soon as {p}, {q}.",
    "{q} whenever {p}.",
)
SEEN = (
    "{s}.",
    "This morning {s}.",
    "Now {s}.",
    "One can see that {s}.",
    "Someone tells us that {s}.",
    "In fact {s}.",
    "Known: {s}.",
)
ASKS = (
    "Must it be that {t}?",
    "Is it so that {t}?",
    "Can we say that {t}?",
    "What about this: {t}?",
    "Statement: {t}.",
    "{t}?",
    "Is this right: {t}?",
    "Judge: {t}.",
    "Someone thinks that {t}. What do you say?",
)
VERDICTS = (
    ("yes", "no", "unknown"),
    ("yes", "no", "unknown"),
    ("yes", "no", "maybe"),
    ("true", "false", "unknown"),
    ("true", "false", "unclear"),
    ("right", "wrong", "open"),
    ("certain", "impossible", "possible"),
    ("sure", "never", "unsure"),
    ("follows", "fails", "neither"),
    ("correct", "incorrect", "undecided"),
)
MENUS = (" Choose {menu}.", " Say {menu}.", " ({menu})", "\nOptions: {menu}", " Possible verdicts: {menu}.", "")
HAPPENS = ("{facts} {s} What happens then?", "{facts} {s} Name the effect.", "{facts} {s} What is the last effect?")
TEMPLATES = RULES + SEEN + ASKS + MENUS + HAPPENS


def draw(rng: Random, level: int) -> Item:
    """Return one problem; chains lengthen and idle rules join in with `level`."""
    n = rng.randint(1, (1, 2, 2, 3, 4)[level - 1])
    n_idle = rng.randint(0, (0, 1, 1, 2, 2)[level - 1])
    names = rng.sample(NAMES, 2 * n + 2 * n_idle + 2)
    events = [
        tuple(side.format(name=name) for side in event)
        for event, name in zip(rng.sample(EVENTS, n + 1 + 2 * n_idle), names, strict=False)
    ]
    chain, rest = events[: n + 1], events[n + 1 :]
    rules = list(pairwise(chain)) + [(rest[2 * i], rest[2 * i + 1]) for i in range(n_idle)]
    if level > 1 and rng.random() < 0.6:
        rng.shuffle(rules)
    template = rng.choice(RULES)
    facts = " ".join(capital(template.format(p=p[0], q=q[0])) for p, q in rules)
    if rng.random() < 0.1:
        seen = capital(rng.choice(SEEN).format(s=chain[0][0]))
        return Item(rng.choice(HAPPENS).format(facts=facts, s=seen), chain[-1][0])
    return _judge(rng, facts, chain, rest)


def _judge(rng: Random, facts: str, chain: list, rest: list) -> Item:
    """Ask about one end of the chain, given the other; each verdict comes equally often."""
    verdict = rng.randrange(3)
    flip = rng.random() < 0.3  # ask for the denial of the event
    if verdict < 2 and rng.random() < 0.5:
        seen, target, holds = chain[0][0], chain[-1], True
    elif verdict < 2:
        seen, target, holds = chain[-1][1], chain[0], False
    else:
        kind = rng.random()
        if kind < 0.45:
            seen, target = chain[-1][0], chain[0]
        elif kind < 0.9 or not rest:
            seen, target = chain[0][1], chain[-1]
        else:
            seen, target = chain[0][0], rng.choice(rest)
        holds = not flip
    if verdict < 2:
        flip = holds != (verdict == 0)
    words = rng.choice(VERDICTS)
    asked = target[1] if flip else target[0]
    menu = rng.choice((", ".join(words), joined(list(words), "or"), "/".join(words)))
    question = rng.choice(ASKS).format(t=asked) + (rng.choice(MENUS).format(menu=menu))
    text = f"{facts} {capital(rng.choice(SEEN).format(s=seen))}{rng.choice((' ', chr(10)))}{capital(question)}"
    return Item(text if words[2] in question else f"{text} [{menu}]", words[verdict])
