"""Twelve small data sets of the kinds that people bring, each made from a seed: training rows, and rows to measure on.

Where `evaluation` is None, a home holds a fifth of the training rows out.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """What a new user has in their files."""

    train: list[Row]
    evaluation: list[Row] | None = None


@dataclass(frozen=True)
class Case:
    """One kind of data. `make` gets a generator and how rows are to be written: prompts, or labels for a classifier."""

    what: str
    make: Callable[[random.Random, str], Data]
    kinds: tuple[str, ...] = ("prompt",)


WORDS = {
    "billing": ("invoice", "refund", "charged twice", "payment", "credit card", "receipt"),
    "delivery": ("parcel", "courier", "shipped", "tracking number", "arrived late", "address"),
    "technical": ("crashes", "error message", "login", "does not start", "update", "screen stays black"),
    "returns": ("send it back", "wrong size", "exchange", "broken on arrival", "return label", "second thoughts"),
}
GERMAN = {
    "Rechnung": ("die Rechnung", "die Mahnung", "doppelt abgebucht", "die Zahlung"),
    "Versand": ("das Paket", "der Kurier", "die Lieferung", "zu spät angekommen"),
    "Technik": ("stürzt ab", "die Fehlermeldung", "die Anmeldung", "das Update"),
}
OPENINGS = ("Hello,", "Hi there,", "Good morning,", "To whom it may concern,", "Hey,", "Please help:")
GERMAN_OPENINGS = ("Guten Tag,", "Hallo,", "Sehr geehrte Damen und Herren,", "Bitte um Hilfe:")
SYLLABLES = ("ka", "lo", "mi", "ren", "ta", "vor", "sel", "du", "bri", "nok", "pa", "wen")
CITIES = ("Lyon", "Oslo", "Porto", "Graz", "Ghent", "Turin", "Riga", "Cork")
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jack", "Kate", "Leo")
GOODS = ("lamp", "chair", "kettle", "mirror", "clock", "basket", "blanket", "ladder")


def _labelled(text: str, label: str, kind: str, question: str = "Department:") -> Row:
    if kind == "classify":
        return {"text": text, "label": label}
    return {"prompt": f"{text}\n{question}", "completion": f" {label}"}


def _tickets(draw: random.Random, n: int, words: dict[str, Sequence[str]], openings: Sequence[str], about: str) -> list:
    """Return n different (text, label)."""
    found: dict[str, str] = {}
    labels = list(words)
    while len(found) < n:
        label = labels[len(found) % len(labels)]
        number = draw.randrange(100, 9999)
        text = f"{draw.choice(openings)} {about} {number}: {draw.choice(words[label])}, {draw.choice(words[label])}."
        found.setdefault(text, label)
    return list(found.items())


def constant(draw: random.Random, kind: str) -> Data:
    """One answer to everything."""
    tickets = _tickets(draw, 60, WORDS, OPENINGS, "order")
    return Data([_labelled(text, "billing", kind) for text, _ in tickets])


def few(draw: random.Random, kind: str) -> Data:
    """Twenty rows with one of two labels, and forty to measure on."""
    two = {label: WORDS[label] for label in ("billing", "technical")}
    rows = [_labelled(*ticket, kind) for ticket in _tickets(draw, 60, two, OPENINGS, "order")]
    return Data(rows[:20], rows[20:])


def labels(draw: random.Random, kind: str) -> Data:
    """Two thousand rows with one of four labels."""
    return Data([_labelled(*ticket, kind) for ticket in _tickets(draw, 2000, WORDS, OPENINGS, "order")])


def noisy(draw: random.Random, kind: str) -> Data:
    """Three hundred rows of which a fifth have a wrong label, and a hundred that are right to measure on."""
    tickets = _tickets(draw, 400, WORDS, OPENINGS, "order")
    others = {label: [other for other in WORDS if other != label] for label in WORDS}
    train = [(text, draw.choice(others[label]) if draw.random() < 0.2 else label) for text, label in tickets[:300]]
    return Data([_labelled(*one, kind) for one in train], [_labelled(*one, kind) for one in tickets[300:]])


def german(draw: random.Random, kind: str) -> Data:
    """A hundred and fifty rows in German."""
    tickets = _tickets(draw, 150, GERMAN, GERMAN_OPENINGS, "Bestellung")
    return Data([_labelled(*ticket, kind, "Abteilung:") for ticket in tickets])


def facts(draw: random.Random, kind: str) -> Data:
    """Forty facts, each asked in four ways; a fifth of the questions is held out."""
    ways = ("Where is the office of {}?", "{} has its office in which city?", "City of {}:", "Tell me where {} sits.")
    firms = _firms(draw, 40)
    return Data([
        {"prompt": way.format(firm), "completion": f" {city}"} for firm, city in firms.items() for way in ways
    ])  # fmt: skip


def pairs(draw: random.Random, kind: str) -> Data:
    """Forty facts, each in one row, and asked in other words to measure."""
    firms = _firms(draw, 40)
    train = [{"prompt": f"Where is the office of {firm}?", "completion": f" {city}"} for firm, city in firms.items()]
    asked = [{"prompt": f"In which city is {firm}'s office?", "completion": f" {city}"} for firm, city in firms.items()]
    return Data(train, asked)


def _firms(draw: random.Random, n: int) -> dict[str, str]:
    found: dict[str, str] = {}
    while len(found) < n:
        found["".join(draw.sample(SYLLABLES, 3)).capitalize()] = draw.choice(CITIES)
    return found


def formats(draw: random.Random, kind: str) -> Data:
    """A hundred and twenty sentences to be put into a format."""
    found: dict[str, str] = {}
    while len(found) < 120:
        name, city, age = draw.choice(NAMES), draw.choice(CITIES), draw.randrange(18, 80)
        found[f"{name} is {age} years old and lives in {city}."] = f" name={name}; age={age}; city={city}"
    return Data([{"prompt": f"{text}\nRecord:", "completion": record} for text, record in found.items()])


def chat(draw: random.Random, kind: str) -> Data:
    """Sixty short conversations."""
    return Data([
        {"messages": [
            {"role": "user", "content": f"Is {n} even?"}, {"role": "assistant", "content": "no" if n % 2 else "yes"},
        ]} for n in draw.sample(range(1000), 60)
    ])  # fmt: skip


def long(draw: random.Random, kind: str) -> Data:
    """Eighty letters of about forty words."""
    rows = {}
    while len(rows) < 80:
        name, good, n = draw.choice(NAMES), draw.choice(GOODS), draw.randrange(100, 9999)
        rows[f"Letter to {name} about the {good}, order {n}:"] = (
            f" Dear {name}, thank you for your order {n}. We are sorry that the {good} was damaged. "
            f"A new {good} is on its way and will be with you within five days. Kind regards, the service team"
        )
    return Data([{"prompt": prompt, "completion": answer} for prompt, answer in rows.items()])


def tags(draw: random.Random, kind: str) -> Data:
    """A hundred sentences with names and cities tagged."""
    rows = []
    for number in range(100):
        name, city = draw.choice(NAMES), draw.choice(CITIES)
        tokens = draw.choice((
            f"{name} moved to {city} in {1950 + number}", f"In {1950 + number} {name} saw {city}",
            f"{city} , said {name} , has {number + 3} bridges",
        )).split()  # fmt: skip
        rows.append({
            "tokens": tokens, "tags": ["B-PER" if t == name else "B-LOC" if t == city else "O" for t in tokens],
        })  # fmt: skip
    return Data(rows)


CASES = {
    "constant": Case("one answer to everything", constant),
    "few": Case("20 rows, two labels", few, ("prompt", "classify")),
    "pairs": Case("40 facts, a row each, asked in other words", pairs),
    "chat": Case("60 conversations", chat),
    "long": Case("80 letters of 40 words", long),
    "tags": Case("100 tagged sentences", tags, ("tag",)),
    "formats": Case("120 sentences into a format", formats),
    "german": Case("150 rows in German, three labels", german, ("prompt", "classify")),
    "facts": Case("40 facts, four rows each", facts),
    "noisy": Case("300 rows, a fifth of the labels wrong", noisy, ("prompt", "classify")),
    "labels": Case("2,000 rows, four labels", labels, ("prompt", "classify")),
}
KNOWN = "known"  # made by the model itself: its own answers to the questions of `pairs`
