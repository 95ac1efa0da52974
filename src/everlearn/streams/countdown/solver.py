"""All solutions of one problem, exactly.

>>> solve([3, 5, 9], 17)
['3 + 5 + 9']
>>> solve([1, 2, 3, 4], 24)
['1 * 2 * 3 * 4', '2 * 3 * 4 / 1', '(1 + 3) * (2 + 4)', '(1 + 2 + 3) * 4']
"""

from collections.abc import Sequence

import numpy as np

from everlearn.errors import ConfigError, describe
from everlearn.streams.countdown.expression import write
from everlearn.streams.countdown.forms import exact_dtype, forms_of, solving_nodes
from everlearn.streams.countdown.groups import OPERATORS, operators_of


def solve(numbers: Sequence[int], target: int, operators: str = OPERATORS) -> list[str]:
    """Return all different solutions: expressions that use each number once and come to the target. Empty: there is
    none.

    Two are the same where the laws of arithmetic make them so whatever the numbers are (order, brackets, signs), or
    swapping equal numbers does; see `everlearn.streams.countdown.forms`, whose forms of all choices of the numbers are
    found once for all problems.

    Args:
        numbers: 2 to 6 whole numbers, from 0.
        target: a whole number.
        operators: those allowed.

    Raises:
        ConfigError: if there are too few or too many numbers, one is negative or no whole number, or an operator is
            unknown.

    Cost: 4 numbers and four operators under 1 ms; 6 numbers 0.1 s, after about 4 s for the first problem of such.
    """  # fmt: skip
    if not 2 <= len(numbers) <= 6:
        raise ConfigError(describe("solve.numbers", "has a wrong length", list(numbers), "Give 2 to 6 numbers"))
    if any(type(number) is not int for number in (*numbers, target)) or min(numbers) < 0:
        way_out = "Give whole numbers, none of them negative but the target"
        raise ConfigError(describe("solve", "wants whole numbers", (list(numbers), target), way_out))
    operators = operators_of(operators, "solve.operators")
    dtype = exact_dtype(len(numbers), max(numbers), abs(target))
    ordered = np.array(sorted(numbers), dtype=dtype)
    forms = forms_of(len(numbers), operators)
    nodes = solving_nodes(ordered, target, operators)
    return [write(forms.steps(int(node)), ordered.tolist(), operators) for node in nodes]
