"""Who has what: people and things matched by clues that leave one solution."""

from itertools import permutations
from random import Random

from everlearn.models.pocket.corpus import words as w
from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.words import capital, joined

# a topic: the things, how a person has one, how a person lacks one, how to ask for a thing's owner and a person's thing
TOPICS = (
    (w.PETS, "{p} keeps the {t}", "{p} does not keep the {t}", "Who keeps the {t}?", "What does {p} keep?"),
    (w.COLORS, "{p} likes {t}", "{p} does not like {t}", "Who likes {t}?", "Which color is liked by {p}?"),
    (w.DRINKS, "{p} drinks {t}", "{p} never drinks {t}", "Who drinks {t}?", "What is in the cup of {p}?"),
    (w.SPORTS, "{p} plays {t}", "{p} does not play {t}", "Who plays {t}?", "Which sport is played by {p}?"),
    (w.JOBS, "{p} is the {t}", "{p} is not the {t}", "Who is the {t}?", "What is the job of {p}?"),
    (w.FRUITS, "{p} eats the {t}", "{p} does not eat the {t}", "Who eats the {t}?", "Which fruit goes to {p}?"),
    (w.TOOLS, "{p} holds the {t}", "{p} does not hold the {t}", "Who holds the {t}?", "What is held by {p}?"),
    (w.MUSIC, "{p} learns the {t}", "{p} does not learn the {t}", "Who learns the {t}?", "What is learned by {p}?"),
    (w.CITIES, "{p} lives in {t}", "{p} does not live in {t}", "Who lives in {t}?", "Where does {p} live?"),
    (w.VEHICLES, "{p} goes by {t}", "{p} does not go by {t}", "Who goes by {t}?", "How does {p} travel?"),
    (w.DAYS, "{p} comes on {t}", "{p} does not come on {t}", "Who comes on {t}?", "When does {p} come?"),
    (w.THINGS, "{p} got the {t}", "{p} did not get the {t}", "Who got the {t}?", "What did {p} get?"),
)
INTROS = (
    "{people} share {things}, one each.",
    "There are {people} and there are {things}. Nobody shares.",
    "{things} go to {people}, one for each.",
    "People: {people}. Things: {things}.",
    "Match {people} with {things}.",
    "Among {people}, each takes a different one of {things}.",
    "{people} - {things}.",
    "We must give {things} to {people}.",
)
EITHER = ("Either {a}, or {b}.", "{a} or {b}.", "At least one is so, {a} or {b}.")
LISTS = ("Write each person with the thing.", "Give the full match.", "Pair up all of them.")
ASK_OTHER = ("And what is left for {p}?", "So {p} has which one?", "Which one is with {p}?", "{p} gets")
TEMPLATES = INTROS + EITHER + LISTS + ASK_OTHER + tuple(text for topic in TOPICS for text in topic[1:])
BONDS = (". ", ". ", "; ", "\n")


def draw(rng: Random, level: int) -> Item:
    """Return one puzzle of 2 to 4 people whose clues leave exactly one match."""
    n = (2, 3, 3, 3, 4)[level - 1] if rng.random() < 0.7 else rng.randint(2, 3 if level < 4 else 4)
    topic = rng.choice(TOPICS)
    people, things = rng.sample(w.NAMES, n), rng.sample(topic[0], n)
    owner = list(range(n))
    rng.shuffle(owner)  # thing i belongs to person owner[i]
    clues = _clues(rng, level, n, owner)
    facts = [_tell(rng, clue, people, things, topic) for clue in clues]
    lists = [joined(rng.sample(people, n)), joined(rng.sample(things, n))]
    intro = capital(rng.choice(INTROS).format(people=lists[0], things=lists[1]))
    bond = rng.choice(BONDS)
    text = f"{intro} {bond.join(facts)}{'' if bond == chr(10) else '.'}".strip()
    end = rng.choice((" ", "\n"))
    question, answer = _ask(rng, people, things, owner, topic)
    more = tuple(_ask(rng, people, things, owner, topic) for _ in range(rng.randint(1, 2)))
    return Item(f"{text}{end}{question}", answer, more=more)


def _clues(rng: Random, level: int, n: int, owner: list[int]) -> list[tuple]:
    """Return clues (kind, thing, person, ...) that only the match `owner` satisfies, drawn in random order."""
    cells = [(t, p) for t in range(n) for p in range(n)]
    pool = [("is", t, p) if owner[t] == p else ("not", t, p) for t, p in cells]
    if level >= 3:
        pool += [("or", t, owner[t], t, p) for t, p in cells if owner[t] != p]
    direct = 0.7 if level == 1 else 0.5 if level < 4 else 0.3
    pool = [clue for clue in pool if clue[0] != "is" or rng.random() < direct]
    rng.shuffle(pool)
    left, chosen = list(permutations(range(n))), []
    for clue in pool:
        kept = [match for match in left if _fits(clue, match)]
        if len(kept) < len(left):
            left = kept
            chosen.append(clue)
        if len(left) == 1:
            return chosen
    return chosen + [("is", t, owner[t]) for t in range(n - 1) if ("is", t, owner[t]) not in chosen]


def _fits(clue: tuple, match: tuple[int, ...]) -> bool:
    if clue[0] == "is":
        return match[clue[1]] == clue[2]
    if clue[0] == "not":
        return match[clue[1]] != clue[2]
    return match[clue[1]] == clue[2] or match[clue[3]] == clue[4]


def _tell(rng: Random, clue: tuple, people: list[str], things: list[str], topic: tuple) -> str:
    if clue[0] != "or":
        return topic[1 if clue[0] == "is" else 2].format(p=people[clue[2]], t=things[clue[1]])
    sides = [topic[1].format(p=people[clue[i]], t=things[clue[i - 1]]) for i in (2, 4)]
    rng.shuffle(sides)
    return rng.choice(EITHER).format(a=sides[0], b=sides[1]).rstrip(".")


def _ask(rng: Random, people: list[str], things: list[str], owner: list[int], topic: tuple) -> tuple[str, str]:
    kind, t = rng.random(), rng.randrange(len(things))
    if kind < 0.4:
        return topic[3].format(t=things[t]), people[owner[t]]
    if kind < 0.65:
        return topic[4].format(p=people[owner[t]]), things[t]
    if kind < 0.8:
        return rng.choice(ASK_OTHER).format(p=people[owner[t]]), things[t]
    pairs = [f"{people[owner[i]]} {things[i]}" for i in range(len(things))]
    return rng.choice(LISTS), ", ".join(pairs)
