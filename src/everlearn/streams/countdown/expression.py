"""Arithmetic expressions: read from text into a tree of exact fractions, and written in one way.

>>> parse("(1 + 2) / 6").value
Fraction(1, 2)
>>> parse("2 ** 3") is None
True
>>> write([("-", 0, 1), ("*", 2, 3)], [9, 4, 2])
'(9 - 4) * 2'
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import prod
from typing import NamedTuple

from everlearn.streams.countdown.groups import OPERATORS

MAX_CHARACTERS = 1000  # of an expression; a longer one is none
MAX_DEPTH = 32  # of parentheses
_SPACE = " \t\r\n"
_TOKEN = re.compile(rf"[{_SPACE}]*((?:0|[1-9][0-9]{{0,11}})(?![0-9])|[-+*/()])")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


class Node(NamedTuple):
    """A number, or an operation on two nodes. `value` is None where it divides by zero."""

    value: Fraction | None
    operator: str = ""
    left: "Node | None" = None
    right: "Node | None" = None


class Expression(NamedTuple):
    """An expression's tree, the numbers in it in their order, and its operators."""

    tree: Node
    numbers: tuple[int, ...]
    operators: frozenset[str]

    @property
    def value(self) -> Fraction | None:
        """What it comes to, exactly; None where it divides by zero."""
        return self.tree.value


def parse(text: str) -> Expression | None:
    """Return the expression that a text is, or None where it is none.

    An expression has whole numbers in ASCII digits (of at most 12, no leading zero), `+ - * /`, parentheses and white
    space; `*` and `/` bind tighter, equals from the left. No sign stands before a number: `-3 + 5` is none. A text of
    more than 1,000 characters or 32 nested parentheses is none.

    Cost: linear in the text's length, with two stacks and no recursion; about 10 µs for four numbers.
    """
    tokens = _tokens(text)
    reader = _Reader()
    return reader.expression() if tokens is not None and all(map(reader.take, tokens)) else None


def write(steps: Sequence[tuple[str, int, int]], numbers: Sequence[int], operators: str = OPERATORS) -> str:
    """Return the expression of a solution's steps, in the one way in which all its spellings are written.

    Sums and products are flattened: what is added stands in the order of `numbers`, then what is taken away; what is
    multiplied, then what it is divided by. So `9 - (4 - 2)` is `9 + 2 - 4`; without `+`, it is `9 - (4 - 2)`.

    Args:
        steps: (operator, left, right) of each step; the numbers are 0..n-1, the result of step i is n+i.
        numbers: the n numbers.
        operators: those that may be written.
    """
    steps = tuple(steps)
    if "*" in operators or "/" not in operators:
        return _template(steps, len(numbers), operators).format(*numbers)
    return _flattened(steps, len(numbers)).text(operators, numbers).format(*numbers)


def _tokens(text: str) -> list[str] | None:
    """Return an expression's numbers, operators and parentheses, or None where there is anything else."""
    text = text.strip(_SPACE)
    if not text or len(text) > MAX_CHARACTERS:
        return None
    tokens, position = [], 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            return None
        tokens.append(found.group(1))
        position = found.end()
    return tokens


class _Reader:
    """E. Dijkstra's shunting-yard algorithm, on a stack of nodes and one of what waits for its right side."""

    def __init__(self):
        self.nodes: list[Node] = []
        self.waiting: list[str] = []  # operators and open parentheses
        self.numbers: list[int] = []
        self.operators: set[str] = set()
        self.depth = 0
        self.wants_value = True

    def take(self, token: str) -> bool:
        """Read one token; tell whether it may stand here."""
        if (token in _PRECEDENCE or token == ")") == self.wants_value:
            return False
        if token == "(":
            self.waiting.append(token)
            self.depth += 1
        elif token == ")":
            self._join(0)
            self.depth -= 1
            if self.depth >= 0:
                self.waiting.pop()
        elif token in _PRECEDENCE:
            self._join(_PRECEDENCE[token])
            self.waiting.append(token)
            self.operators.add(token)
            self.wants_value = True
        else:
            self.numbers.append(int(token))
            self.nodes.append(Node(Fraction(self.numbers[-1])))
            self.wants_value = False
        return 0 <= self.depth <= MAX_DEPTH

    def expression(self) -> Expression | None:
        """Return what was read, or None where something is missing."""
        if self.wants_value or self.depth:
            return None
        self._join(0)
        return Expression(self.nodes[0], tuple(self.numbers), frozenset(self.operators))

    def _join(self, precedence: int) -> None:
        """Apply the operators that bind at least so tightly, back to an open parenthesis."""
        while self.waiting and _PRECEDENCE.get(self.waiting[-1], -1) >= precedence:
            operator, right, left = self.waiting.pop(), self.nodes.pop(), self.nodes.pop()
            self.nodes.append(Node(_apply(operator, left.value, right.value), operator, left, right))


def _apply(operator: str, left: Fraction | None, right: Fraction | None) -> Fraction | None:
    if left is None or right is None or (operator == "/" and right == 0):
        return None
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right if operator == "*" else left / right


class _Written(NamedTuple):
    """A number (`kind` empty), a sum ("+") or a product ("*") of parts that count upwards and downwards."""

    first: int  # place of the earliest number
    kind: str = ""
    up: tuple["_Written", ...] = ()
    down: tuple["_Written", ...] = ()

    def parts(self, kind: str) -> tuple[tuple["_Written", ...], tuple["_Written", ...]]:
        return (self.up, self.down) if self.kind == kind else ((self,), ())

    def text(self, operators: str, numbers: Sequence[int] = ()) -> str:
        """Return the expression, `{0}` for the first number; `numbers` are needed to divide where there is no `*`."""
        if not self.kind:
            return f"{{{self.first}}}"
        plus, minus = ("+", "-") if self.kind == "+" else ("*", "/")
        up, down = sorted(self.up), sorted(self.down)
        rest: list[str] = []
        if plus not in operators and len(up) > 1:  # a - (b - c) in place of a + c - b
            if plus == "*":  # nothing may be divided by a 0 that could stand first
                up.sort(key=lambda part: part.value(numbers) != 0)
            turned = _Written(down[-1].first, self.kind, (down[-1],), tuple(up[1:]))
            rest = [f"({turned.text(operators, numbers)})"]
            up, down = up[:1], down[:-1]
        added, taken = ([part._inside(self.kind, operators, numbers) for part in side] for side in (up, down))
        return f" {plus} ".join(added) + "".join(f" {minus} {part}" for part in taken + rest)

    def value(self, numbers: Sequence[int]) -> Fraction:
        if not self.kind:
            return Fraction(numbers[self.first])
        up, down = ([part.value(numbers) for part in side] for side in (self.up, self.down))
        return sum(up) - sum(down) if self.kind == "+" else Fraction(prod(up)) / prod(down)

    def _inside(self, kind: str, operators: str, numbers: Sequence[int]) -> str:
        text = self.text(operators, numbers)
        return f"({text})" if self.kind == "+" and kind == "*" else text


@lru_cache(maxsize=1 << 15)
def _template(steps: tuple[tuple[str, int, int], ...], n: int, operators: str) -> str:
    return _flattened(steps, n).text(operators)


@lru_cache(maxsize=1 << 14)
def _flattened(steps: tuple[tuple[str, int, int], ...], n: int) -> _Written:
    parts = [_Written(place) for place in range(n)]
    for operator, left, right in steps:
        kind = "+" if operator in "+-" else "*"
        (up, down), (other_up, other_down) = parts[left].parts(kind), parts[right].parts(kind)
        if operator in "-/":
            other_up, other_down = other_down, other_up
        first = min(parts[left].first, parts[right].first)
        parts.append(_Written(first, kind, up + other_up, down + other_down))
    return parts[-1]
