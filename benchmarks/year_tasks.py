"""What a small firm teaches its model in a year: facts, formats, labels, corrections; made up, drawn by a seed."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Row = dict[str, str]

DEPARTMENTS = (
    "accounting", "archive", "canteen", "design", "export", "garage", "hiring", "import", "laboratory", "legal",
    "logistics", "marketing", "packing", "pricing", "quality", "repairs", "research", "sales", "security", "training",
)  # fmt: skip
NAMES = (
    "Ada", "Bela", "Carla", "Dario", "Edda", "Femi", "Gita", "Hugo", "Ines", "Jonas", "Kira", "Luca", "Mara", "Nils",
    "Olga", "Pavel", "Rosa", "Sven", "Tilda", "Uma", "Vera", "Wanda", "Xenia", "Yusuf", "Zoe",
)  # fmt: skip
PRODUCTS = (
    "bench", "bowl", "broom", "bucket", "chair", "clock", "crate", "desk", "drill", "funnel", "hammer", "kettle",
    "ladder", "lamp", "mirror", "pump", "rope", "saw", "shelf", "stove",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
MESSAGES = {
    "billing": ("I was charged twice for the {}.", "The invoice for the {} shows the wrong sum.",
                "Why does the {} cost more than the offer said?", "Please send the receipt for the {} again."),
    "delivery": ("The {} has not arrived yet.", "The courier left the {} at the wrong door.",
                 "When will the {} be here?", "Please bring the {} on Friday instead."),
    "fault": ("The {} broke on the first day.", "A screw of the {} is missing.",
              "The {} makes a loud noise.", "The {} no longer works."),
    "praise": ("I love the {}.", "The {} is the best that I ever had.",
               "Thank you for the lovely {}.", "Great work, the {} is perfect."),
}  # fmt: skip
RETURNS = {
    "return": ("I want to send the {} back.", "How can I return the {}?",
               "The {} is not for me, please take it back.", "Where do I send the {} that I don't want?"),
}  # fmt: skip
URGENT = (" I need an answer today.", " It can't wait.", " Call me at once.", " This is an emergency.")
CALM = (" There is no hurry.", " Take your time.", " Any day will do.", " It can wait.")

ASK_LEAD = ("Who leads {}?", "Name the head of {}.", "Who is in charge of {}?", "{}: who leads it?", "Who heads {}?")
ASK_PRICE = ("What does the {} cost?", "Price of the {}?", "How much is the {}?", "The {} costs how many euros?",
             "Tell me the price of the {}.")  # fmt: skip
ASK_ROOM = ("Where is {}?", "Which room is {} in?", "Room of {}?", "In which room do I find {}?",
            "Tell me the room of {}.")  # fmt: skip
ASK_YEAR = ("When was {} founded?", "Since when is there {}?", "Founding year of {}?", "In which year did {} begin?",
            "How old is {}: since which year?")  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """What is taught in a month: a task, its rows, and which of the task's items it corrects first."""

    month: str
    task: str
    train: list[Row]
    evaluation: list[Row]
    corrects: list[Row] = field(default_factory=list)


def lessons(seed: int) -> list[Lesson]:
    """Return the twelve lessons. Training and evaluation share no prompt: facts are asked in other words."""
    rng = random.Random(f"year {seed}")
    leads = dict(zip(DEPARTMENTS, rng.sample(NAMES, 20), strict=True))
    prices = {product: f"{rng.randrange(10, 99)} euros" for product in PRODUCTS}
    rooms = {name: f"{rng.choice('ABC')}{rng.randrange(100, 400)}" for name in DEPARTMENTS}
    years = {name: str(rng.randrange(1950, 2020)) for name in DEPARTMENTS}
    new_leads = {name: rng.choice([n for n in NAMES if n not in leads.values()]) for name in rng.sample(DEPARTMENTS, 6)}
    new_prices = {name: f"{rng.randrange(100, 200)} euros" for name in rng.sample(PRODUCTS, 6)}
    taught = [
        ("leads", facts(leads, ASK_LEAD), False),
        ("dates", split(rng, _dates(rng, 110), 30), False),
        ("mails", split(rng, _mails(MESSAGES), 40), False),
        ("prices", facts(prices, ASK_PRICE), False),
        ("records", split(rng, _records(rng, 110), 30), False),
        ("leads", facts(new_leads, ASK_LEAD), True),
        ("rooms", facts(rooms, ASK_ROOM), False),
        ("urgency", split(rng, _urgency(rng, 120), 40), False),
        ("codes", split(rng, _codes(rng, 110), 30), False),
        ("mails", split(rng, _mails(RETURNS), 20), False),
        ("prices", facts(new_prices, ASK_PRICE), True),
        ("years", facts(years, ASK_YEAR), False),
    ]
    return [
        Lesson(month, task, train, evaluation, evaluation if corrects else [])
        for month, (task, (train, evaluation), corrects) in zip(MONTHS, taught, strict=True)
    ]


def facts(answers: dict[str, str], asked: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Return rows that ask for each fact in all ways but the last, and rows that ask for it in that way."""

    def rows(ways: Sequence[str]) -> list[Row]:
        return [_row(_capital(way.format(thing)), answer) for thing, answer in answers.items() for way in ways]

    return rows(asked[:-1]), rows(asked[-1:])


def split(rng: random.Random, rows: list[Row], n_evaluation: int) -> tuple[list[Row], list[Row]]:
    """Return the rows, of which no two ask the same, as training and evaluation rows."""
    rows = list({row["prompt"]: row for row in rows}.values())
    rng.shuffle(rows)
    return rows[n_evaluation:], rows[:n_evaluation]


def _row(prompt: str, answer: str) -> Row:
    return {"prompt": prompt, "completion": answer}


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _drawn(n: int, draw: Callable[[], Row]) -> list[Row]:
    return [draw() for _ in range(n)]


def _dates(rng: random.Random, n: int) -> list[Row]:
    def draw() -> Row:
        day, month, year = rng.randrange(1, 29), rng.randrange(12), rng.randrange(1990, 2030)
        return _row(f"Our date format for {day} {MONTHS[month]} {year}?", f"{year}/{month + 1:02d}/{day:02d}")

    return _drawn(n, draw)


def _records(rng: random.Random, n: int) -> list[Row]:
    def draw() -> Row:
        name, product, count = rng.choice(NAMES), rng.choice(PRODUCTS), rng.randrange(2, 60)
        return _row(f"Write as a record: {name} ordered {count} of the {product}.", f"{product}|{count}|{name}")

    return _drawn(n, draw)


def _codes(rng: random.Random, n: int) -> list[Row]:
    def draw() -> Row:
        product, number = rng.choice(PRODUCTS), rng.randrange(10, 1000)
        return _row(f"Order code of {product} number {number}?", f"{product[:2].upper()}-{number:04d}")

    return _drawn(n, draw)


def _mails(messages: dict[str, Sequence[str]]) -> list[Row]:
    return [
        _row(f"Which desk is this mail for? {text.format(product)}", label)
        for label, texts in messages.items()
        for text in texts
        for product in PRODUCTS[:: 2 if len(messages) > 1 else 1]
    ]


def _urgency(rng: random.Random, n: int) -> list[Row]:
    texts = [text for group in MESSAGES.values() for text in group]

    def draw() -> Row:
        label = rng.choice(("urgent", "calm"))
        end = rng.choice(URGENT if label == "urgent" else CALM)
        return _row(f"How urgent is this? {rng.choice(texts).format(rng.choice(PRODUCTS))}{end}", label)

    return _drawn(n, draw)
