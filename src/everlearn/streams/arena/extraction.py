"""Extraction: one thing read from an order or a poll, or worked out from several of its entries.

Item 0 of seed 0, difficulty 1, split "train":

    What is the date of the order?
    Letter of March 5. Dear Anna, please send me 6 x kite for 6 each, 7 x hat for 2 each. Yours, Leo
    Answer:

Its answer: March 5
"""

import random
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.vocabulary import NAMES, THINGS

ORDERS = (  # how an order is written, each of its lines, and what stands between them
    ("From: {sender}\nTo: {receiver}\nDate: {date}\nPlease send {lines}.", "{n} x {thing} at {price} each", ", "),
    ("Order of {date} by {sender} for {receiver}\nthing | number | price\n{lines}", "{thing} | {n} | {price}", "\n"),
    ("from={sender}; to={receiver}; date={date}; {lines}", "{thing}: number={n}, price={price}", "; "),
    (
        "Letter of {date}. Dear {receiver}, please send me {lines}. Yours, {sender}",
        "{n} x {thing} for {price} each",
        ", ",
    ),
)
POLLS = (
    "Votes for a present: {entries}.",
    "Asked for a present, the class said: {entries}.",
    "Presents wished for\n{lines}",
)
TEMPLATES = ("{text}\n{question}", "{question}\n{text}", "Use this record.\n{text}\n{question}")
QUESTIONS = {
    "sender": "Who sends the order?",
    "receiver": "To whom is the order sent?",
    "date": "What is the date of the order?",
    "number": "What number of the {thing} is ordered?",
    "price": "What is the price of one {thing}?",
    "dearest": "Which thing has the highest price?",
    "cheapest": "Which thing has the lowest price?",
    "most": "Which thing is ordered in the largest number?",
    "fewest": "Which thing is ordered in the smallest number?",
    "kinds": "How many different things are ordered?",
    "pieces": "How many pieces are ordered in all?",
    "cost": "What is the cost of all pieces of the {thing}?",
    "total": "What is the cost of the whole order?",
    "rest": "What would the order cost without the {thing}?",
    "winner": "Which present is named most often?",
    "votes": "How many times is the {thing} named?",
    "lead": "By how many votes is the first present ahead of the second?",
    "presents": "How many different presents are named?",
}
ASKED = {
    1: ("sender", "receiver", "date"),
    2: ("number", "price"),
    3: ("dearest", "cheapest", "most", "fewest", "kinds"),
    4: ("pieces", "cost"),
    5: ("total", "rest"),
}
ASKED_OF_POLLS = {3: ("winner",), 4: ("winner", "votes"), 5: ("lead", "presents")}
N_LINES = {1: (2, 2), 2: (3, 3), 3: (3, 5), 4: (4, 4), 5: (4, 4)}  # from, to
SHAPES = {  # how often each present is named in a poll, the most frequent first and alone
    3: ((4, 2, 1), (3, 2, 2), (3, 2, 1)),
    4: ((4, 3, 2), (5, 3, 1), (4, 2, 2, 1), (3, 2, 2, 2)),
    5: ((5, 4, 3), (6, 4, 2), (5, 3, 3, 1), (4, 3, 3, 2), (5, 3, 2, 1, 1), (4, 3, 2, 2, 1)),
}
MONTHS = ("March", "April", "May", "June", "July", "August")

Found = tuple[str, tuple[str, ...], list[str]]  # the answer, what it could be, the steps


@register("problem", "extraction")
class Extraction(NamedTuple):
    """An order or, from difficulty 3 on, a poll; and what is asked about it.

    Difficulty: a name or the date of an order of two lines; a number or price out of three lines; the line with the
    most or least, the number of lines, the first of a poll; a sum of numbers, a cost, a frequency; the sum
    of several costs, the lead of the first in a poll, the number of presents.

    The same item: the same order or the same frequencies, whatever is asked, the layout and the wording.
    """

    difficulty: int
    record: "Order | Poll"
    asked: str
    thing: str  # the one that the question names, if it names any

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the record and the question."""
        is_poll = difficulty in ASKED_OF_POLLS and rng.random() < 0.5
        record = (Poll if is_poll else Order).draw(rng, difficulty)
        asked = rng.choice((ASKED_OF_POLLS if is_poll else ASKED)[difficulty])
        return cls(difficulty, record, asked, rng.choice(record.things))

    def content(self) -> str:
        """Return the whole record, its entries in alphabetical order."""
        return self.record.content()

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Write the record in one of its layouts, and ask."""
        answer, choices, steps = self.record.find(self.asked, self.thing)
        question = QUESTIONS[self.asked].format(thing=self.thing)
        body = rng.choice(TEMPLATES).format(text=self.record.text(rng), question=question)
        return Problem(
            type="extraction",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=answer,
            choices=choices,
            explanation="; ".join((*steps, f"so {answer}")),
            content=content,
        )


class Order(NamedTuple):
    """Who orders what from whom: things with different numbers and different prices."""

    sender: str
    receiver: str
    date: str
    things: tuple[str, ...]
    numbers: tuple[int, ...]
    prices: tuple[int, ...]

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw an order."""
        n = rng.randint(*N_LINES[difficulty])
        sender, receiver = rng.sample(NAMES, 2)
        numbers, prices = rng.sample(range(2, 10), n), rng.sample(range(1, 4 + 4 * difficulty), n)
        date = f"{rng.choice(MONTHS)} {rng.randint(1, 30)}"
        return cls(sender, receiver, date, tuple(rng.sample(THINGS, n)), tuple(numbers), tuple(prices))

    def content(self) -> str:
        """Return people, date and lines."""
        lines = sorted(f"{thing} {number} {price}" for thing, number, price in self._lines())
        return f"{self.sender} {self.receiver} {self.date}: {', '.join(lines)}"

    def text(self, rng: random.Random) -> str:
        """Write the order in one of its layouts."""
        layout, line, between = rng.choice(ORDERS)
        lines = [line.format(thing=thing, n=number, price=price) for thing, number, price in self._lines()]
        return layout.format(sender=self.sender, receiver=self.receiver, date=self.date, lines=between.join(lines))

    def find(self, asked: str, thing: str) -> Found:
        """Return the answer to a question about the order."""
        if asked in ("sender", "receiver", "date"):
            parts = {"sender": self.sender, "receiver": self.receiver, "date": self.date}
            choices = () if asked == "date" else tuple(sorted((self.sender, self.receiver)))
            return parts[asked], choices, [f"{name}: {part}" for name, part in parts.items()]
        if asked in ("dearest", "cheapest", "most", "fewest"):
            values = self.prices if asked in ("dearest", "cheapest") else self.numbers
            best = max(values) if asked in ("dearest", "most") else min(values)
            listed = ", ".join(f"{thing} {value}" for thing, value in zip(self.things, values, strict=True))
            steps = [listed, f"the {'largest' if best == max(values) else 'smallest'} is {best}"]
            return self.things[values.index(best)], tuple(sorted(self.things)), steps
        return self._reckon(asked, thing)

    def _reckon(self, asked: str, thing: str) -> Found:
        number, price = next(line[1:] for line in self._lines() if line[0] == thing)
        if asked == "kinds":
            return str(len(self.things)), (), [f"{place}: {thing}" for place, thing in enumerate(self.things, start=1)]
        if asked in ("number", "price"):
            return str(number if asked == "number" else price), (), [f"{thing}: number {number}, price {price}"]
        if asked == "pieces":
            return str(sum(self.numbers)), (), [f"{' + '.join(map(str, self.numbers))} = {sum(self.numbers)}"]
        costs = {name: (n, each, n * each) for name, n, each in self._lines()}
        if asked != "total":
            costs = {name: cost for name, cost in costs.items() if (name == thing) == (asked == "cost")}
        steps = [f"{name}: {n} * {each} = {cost}" for name, (n, each, cost) in costs.items()]
        total = sum(cost for _, _, cost in costs.values())
        if len(costs) > 1:
            steps.append(f"{' + '.join(str(cost) for _, _, cost in costs.values())} = {total}")
        return str(total), (), steps

    def _lines(self) -> list[tuple[str, int, int]]:
        return list(zip(self.things, self.numbers, self.prices, strict=True))


class Poll(NamedTuple):
    """Presents that a class wishes for, and how often each is named, the most frequent first."""

    things: tuple[str, ...]
    votes: tuple[int, ...]

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the frequencies, then the presents."""
        votes = rng.choice(SHAPES[difficulty])
        return cls(tuple(rng.sample(THINGS, len(votes))), votes)

    def content(self) -> str:
        """Return the presents with their frequencies."""
        return ", ".join(sorted(f"{thing} {votes}" for thing, votes in zip(self.things, self.votes, strict=True)))

    def text(self, rng: random.Random) -> str:
        """List the votes in any order."""
        entries = [thing for thing, votes in zip(self.things, self.votes, strict=True) for _ in range(votes)]
        rng.shuffle(entries)
        return rng.choice(POLLS).format(entries=", ".join(entries), lines="\n".join(entries))

    def find(self, asked: str, thing: str) -> Found:
        """Return the answer to a question about the poll."""
        steps = [f"{thing} {votes} times" for thing, votes in zip(self.things, self.votes, strict=True)]
        first, second = self.votes[:2]
        if asked == "winner":
            return self.things[0], tuple(sorted(self.things)), [*steps, f"the most is {first}"]
        if asked == "lead":
            return str(first - second), (), [*steps, f"{first} - {second} = {first - second}"]
        return str(len(self.things) if asked == "presents" else self.votes[self.things.index(thing)]), (), steps
