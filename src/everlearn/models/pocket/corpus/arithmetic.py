"""Sums, differences, products and quotients, alone and in short expressions."""

from collections.abc import Callable
from random import Random

from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.words import NUMBER_WORDS

SYMBOLS = (
    "{a} {op} {b}",
    "{a} {op} {b} =",
    "Compute {a} {op} {b}.",
    "What is {a} {op} {b}?",
    "How much is {a} {op} {b}?",
    "Work out {a} {op} {b}",
    "Calculate: {a} {op} {b}",
    "{a}{op}{b}",
    "Find the value of {a} {op} {b}.",
    "Evaluate {a} {op} {b}",
)
PLUS = (
    "What is {a} plus {b}?",
    "Add {a} and {b}.",
    "Add {b} to {a}.",
    "The sum of {a} and {b}",
    "{a} and {b} together",
    "What number is {b} more than {a}?",
    "Increase {a} by {b}.",
    "Put {a} and {b} together: how many?",
    "{a} plus {b}",
)
MINUS = (
    "What is {a} minus {b}?",
    "Subtract {b} from {a}.",
    "Take {b} away from {a}.",
    "Take {b} from {a}: how many are left?",
    "What number is {b} less than {a}?",
    "Lower {a} by {b}.",
    "The difference of {a} and {b}",
    "How much more is {a} than {b}?",
    "From {b} to {a}, how far?",
    "{a} less {b}",
)
TIMES = (
    "What is {a} times {b}?",
    "Multiply {a} by {b}.",
    "The product of {a} and {b}",
    "{a} groups of {b} are how many?",
    "{a} times {b}",
    "How many are {a} rows of {b}?",
)
OVER = (
    "What is {a} divided by {b}?",
    "Divide {a} by {b}.",
    "Share {a} among {b} evenly: how many each?",
    "How often does {b} go into {a}?",
    "Split {a} into {b} equal parts. One part",
    "{a} over {b}",
)
PARTS: dict[str, Callable[[int], int]] = {  # the answer for a; {e} is 2 * a
    "What is half of {e}?": lambda a: a,
    "Double {a}.": lambda a: 2 * a,
    "What is twice {a}?": lambda a: 2 * a,
    "Triple {a}.": lambda a: 3 * a,
    "Half of {e}": lambda a: a,
    "Which number comes right after {a}?": lambda a: a + 1,
    "Which number comes right before {a}?": lambda a: a - 1,
}
COMPARE = (
    "Which is {word}, {a} or {b}?",
    "Pick the {word} number: {a} or {b}",
    "{a} or {b}: the {word} one",
    "Of {a}, {c} and {b} the {most}",
    "The {most} of {a}, {b}, {c}",
)
TEMPLATES = SYMBOLS + PLUS + MINUS + TIMES + OVER + tuple(PARTS) + COMPARE
SIZES = {1: 9, 2: 20, 3: 50, 4: 100, 5: 300}
FACTORS = {1: 4, 2: 6, 3: 10, 4: 12, 5: 12}


def draw(rng: Random, level: int) -> Item:
    """Return one item of arithmetic; numbers grow and expressions lengthen with `level` (1 to 5)."""
    kind = rng.random()
    if kind < 0.72:
        return _single(rng, level)
    if kind < 0.80:
        return _part(rng, level)
    if kind < 0.86:
        return _compare(rng, level)
    return _chain(rng, level)


def operands(rng: Random, level: int, op: str) -> tuple[int, int, int]:
    """Return a, b and `a op b`; every result is a non-negative integer."""
    size, factor = SIZES[level], FACTORS[level]
    if op == "+":
        a, b = rng.randint(0, size), rng.randint(1, size if rng.random() < 0.5 else min(size, 20))
        return a, b, a + b
    if op == "-":
        a = rng.randint(1, size)
        b = rng.randint(0, a if rng.random() < 0.5 else min(a, 20))
        return a, b, a - b
    b = rng.randint(1, factor)
    a = rng.randint(1, factor if rng.random() < 0.7 else min(size, 30))
    if op == "*":
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        return a, b, a * b
    return a * b, b, a


def _single(rng: Random, level: int) -> Item:
    op = rng.choices("+-*/", (4, 4, 3, 1.5))[0]
    a, b, answer = operands(rng, level, op)
    if rng.random() < 0.5:
        template = rng.choice(SYMBOLS)
    else:
        template = rng.choice({"+": PLUS, "-": MINUS, "*": TIMES, "/": OVER}[op])
    sign = rng.choice(("*", "x")) if op == "*" else op
    left, right = str(a), str(b)
    if a <= 20 and b <= 20 and rng.random() < 0.12:
        left, right = NUMBER_WORDS[a], NUMBER_WORDS[b]
        sign = {"+": "plus", "-": "minus", "*": "times", "x": "times", "/": "divided by"}[sign]
        template = template.replace("{a}{op}{b}", "{a} {op} {b}")
    return Item(template.format(a=left, b=right, op=sign), str(answer))


def _part(rng: Random, level: int) -> Item:
    a = rng.randint(1, SIZES[level])
    template = rng.choice(tuple(PARTS))
    return Item(template.format(a=a, e=2 * a), str(PARTS[template](a)))


def _compare(rng: Random, level: int) -> Item:
    a, b, c = rng.sample(range(SIZES[level] + 3), 3)
    up = rng.random() < 0.5
    template = rng.choice(COMPARE)
    pick = max if up else min
    forms = (("larger", "largest"), ("bigger", "biggest")) if up else (("smaller", "smallest"), ("lower", "lowest"))
    word, most = forms[rng.randrange(2)]
    answer = pick(a, b, c) if "{c}" in template else pick(a, b)
    return Item(template.format(a=a, b=b, c=c, word=word, most=most), str(answer))


def _chain(rng: Random, level: int) -> Item:
    """Three or four numbers, left to right, products first by writing them first."""
    size = min(SIZES[level], 60)
    total, steps = rng.randint(1, size), []
    text = str(total)
    if level >= 3 and rng.random() < 0.4:
        a, b, total = operands(rng, min(level, 3), "*")
        text = f"{a} * {b}"
        steps.append(f"{a} * {b} = {total}")
    for _ in range(2 if level < 4 or steps else rng.randint(2, 3)):
        if rng.random() < 0.5 and total > 0:
            b = rng.randint(1, min(total, size))
            text, new = f"{text} - {b}", total - b
            steps.append(f"{total} - {b} = {new}")
        else:
            b = rng.randint(1, size)
            text, new = f"{text} + {b}", total + b
            steps.append(f"{total} + {b} = {new}")
        total = new
    question = rng.choice(SYMBOLS).replace("{a} {op} {b}", "{a}").replace("{a}{op}{b}", "{a}").format(a=text)
    return Item(question, str(total), "; ".join(steps))
