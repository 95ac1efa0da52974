"""Code reasoning: what a short Python program prints, found by running it.

Item 0 of seed 0, difficulty 1, split "train":

    Program:
    x = 7
    y = x * 2
    x = y - 20
    print(x + y)
    Its output?
    Answer:

Its answer: 8
"""

import ast
import random
from dataclasses import dataclass
from functools import cache
from itertools import product
from string import Formatter
from types import CodeType
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem

TEMPLATES = (
    "What does this Python program print?\n{program}",
    "{program}\nWhat is printed?",
    "Read the program and say what it prints.\n{program}",
    "Program:\n{program}\nIts output?",
)
PROGRAMS = {
    1: (
        "x = {A}\ny = x {op} {B}\nprint(y {sign} {C})",
        "x = {A}\ny = {B}\nx = x {sign} y\nprint(x * {K})",
        "x = {A}\ny = x * {K}\nx = y {sign} {B}\nprint(x + y)",
    ),
    2: (
        "x = {A}\ny = {B}\nif x {less} y:\n    x = x {op} {C}\nelse:\n    x = y {sign} {K}\nprint(x)",
        "x = {A} * {K}\ny = x // {B}\nprint(y {sign} x % {C})",
        "x = {A}\ny = {B}\nif x % {K} == y % {K}:\n    y = y {op} {C}\nprint(x {sign} y)",
    ),
    3: (
        "x = {A}\nfor i in range({N}):\n    x = x {sign} i * {K}\nprint(x)",
        "x = {A}\nfor y in [{B}, {C}, {D}]:\n    x = y {sign} x\nprint(x)",
        "items = [{A}, {B}, {C}, {D}]\nx = sum(items[{I}:]) {sign} max(items)\nprint(x)",
        "word = {WORD!r}\nword = word[{I}:] + word[:{I}]\nprint(word[{J}:])",
    ),
    4: (
        "x = {A}\nfor y in [{B}, {C}, {D}, {E}]:\n    if y {less} {F}:\n        x = x {op} {K}\n    else:\n"
        "        x = x {sign} y\nprint(x)",
        "x = {A}\ni = 0\nwhile x < {A} * {K}:\n    i = i + 1\n    x = x + i + {B}\nprint(x {sign} i)",
        "items = [{A}, {B}]\nfor i in range({N}):\n    items = items + [items[-1] {sign} items[-2]]\nprint(items[-1])",
        'word = {WORD!r}\ntext = ""\nfor letter in word[{I}:]:\n    if letter != word[{J}]:\n'
        "        text = letter + text\nprint(text)",
    ),
    5: (
        "def f(n):\n    x = n {op} {A}\n    if n >= {K}:\n        x = f(n - {L}) {sign} n\n    return x\n\n"
        "print(f({N}) + {B})",
        "def f(a, b):\n    return a {op} b\n\nx = {A}\nfor i in range(1, {N}):\n    x = f(x, i) {sign} {B}\nprint(x)",
        "x = {A}\nfor i in range({N}):\n    for j in range(i):\n        if (i + j) % {K} == 1:\n"
        "            x = x {sign} i * j\nprint(x)",
        "x = {A} * {B}\ny = {C} * {B}\nwhile y > 0:\n    z = x % y\n    x = y\n    y = z\nprint(x {sign} {D})",
    ),
}
# What stands in the holes of a program. With other operators it is another program, compiled for itself.
OPERATORS = {"op": ("+", "-", "*"), "sign": ("+", "-"), "less": ("<", ">", "!=")}
CONSTANTS: dict[str, range | tuple[str, ...]] = {
    **dict.fromkeys("ABCDEF", range(2, 21)),
    **dict.fromkeys("KL", range(2, 6)),
    **dict.fromkeys("IJ", range(1, 4)),
    "N": range(3, 7),
    "WORD": ("basket", "candle", "garden", "island", "market", "pencil", "rocket", "silver", "spring", "window"),
}
BUILTINS = {"max": max, "range": range, "sum": sum}  # with `print` all that a program can reach


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A program with holes for its constants, and its code, which reads them from variables named like the holes."""

    text: str
    holes: tuple[str, ...]
    code: CodeType

    def run(self, constants: dict[str, int | str]) -> tuple[str, list[str]]:
        """Return what the program prints with these constants, and all that it assigns, as `x = 3`, in order.

        Safe, since the text is one of `PROGRAMS`: it ends, and reaches nothing but `BUILTINS`.
        """
        printed: list[int | str] = []
        trace: list[str] = []
        names = {"__builtins__": BUILTINS, "print": printed.append, "note": trace.append}
        exec(self.code, names | constants)
        return str(printed[0]), trace


@cache
def skeletons(difficulty: int) -> tuple[tuple[Skeleton, ...], ...]:
    """Return the programs of one difficulty, each with all its operators."""
    return tuple(tuple(_skeleton(text) for text in _with_operators(program)) for program in PROGRAMS[difficulty])


@register("problem", "code")
class ShortProgram(NamedTuple):
    """A program and its constants.

    Difficulty: 1 assignments; 2 a condition, division and remainder; 3 a loop, a list or a string; 4 a loop with a
    condition in it, or lists that grow; 5 functions, recursion and nested loops.

    The same item: the same program, whatever the wording around it.
    """

    difficulty: int
    skeleton: Skeleton
    constants: dict[str, int | str]

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw a program, its operators and its constants."""
        skeleton = rng.choice(rng.choice(skeletons(difficulty)))
        return cls(difficulty, skeleton, {hole: rng.choice(CONSTANTS[hole]) for hole in skeleton.holes})

    def content(self) -> str:
        """Return the program."""
        return self.skeleton.text.format(**self.constants)

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Run the program."""
        printed, trace = self.skeleton.run(self.constants)
        return Problem(
            type="code",
            difficulty=self.difficulty,
            prompt=rng.choice(TEMPLATES).format(program=content) + CUE,
            answer=printed,
            choices=(),
            explanation="; ".join([*trace, f"prints {printed}"]),
            content=content,
        )


class _Name(str):
    """A name that is written without quotes where a program writes a constant's repr."""

    __repr__ = str.__str__


class _Noting(ast.NodeTransformer):
    """Adds to each assignment a call that notes the value."""

    def visit_Assign(self, node: ast.Assign) -> list[ast.stmt]:
        name = ast.unparse(node.targets[0])
        return [node, *ast.parse(f'note(f"{name} = {{{name}!r}}")').body]


def _skeleton(text: str) -> Skeleton:
    holes = tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(text) if name))
    tree = ast.parse(text.format(**{hole: _Name(hole) for hole in holes}))
    return Skeleton(text, holes, compile(ast.fix_missing_locations(_Noting().visit(tree)), "<arena>", "exec"))


def _with_operators(program: str) -> list[str]:
    holes = [hole for hole in OPERATORS if f"{{{hole}}}" in program]
    texts = []
    for operators in product(*(OPERATORS[hole] for hole in holes)):
        text = program
        for hole, operator in zip(holes, operators, strict=True):
            text = text.replace(f"{{{hole}}}", operator)
        texts.append(text)
    return texts
