"""All different expressions of n numbers, found once and evaluated on many problems together, exactly.

Two expressions are one form if the laws of arithmetic turn one into the other whatever the numbers are: order, brackets
and signs, so that `a - (b - c)` is `a + c - b` and `(a - b) * (c - d)` is `(b - a) * (d - c)`. With all four operators
2, 3, 4, 5, 6 numbers have 6, 68, 1,170, 27,142, 793,002 forms: https://oeis.org/A140606.

>>> [len(forms_of(n, "+-*/").whole) for n in (2, 3, 4)]
[6, 68, 1170]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np

_PRIME = np.uint64(2**31 - 1)  # products of two residues fit 64 bits
_BLOCK = 1 << 19  # values that are held at a time
# what the forms are told apart by: their values, modulo the prime, where the numbers are these
_POINTS = np.random.default_rng(20250601).integers(1000, int(_PRIME), (2, 6)).astype(np.uint64)


@dataclass(frozen=True)
class Forms:
    """The forms of n numbers, and of each choice of some of them, as nodes; the n numbers are the first.

    Attributes:
        n: how many numbers.
        operator: each node's, 0 for a number; uint8 [n_nodes].
        left, right: the nodes that it joins, all before it; int32 [n_nodes].
        levels: nodes that join 2, 3, ..., n numbers.
        turns: whether a product can only be had by dividing by a quotient: there is `/` but no `*`.
        without_newest: whether a form of all n can be written without the last operator [n_forms].
    """

    n: int
    operator: np.ndarray
    left: np.ndarray
    right: np.ndarray
    levels: tuple[slice, ...]
    turns: bool
    without_newest: np.ndarray

    @property
    def whole(self) -> np.ndarray:
        """The nodes that are forms of all n numbers [n_forms]."""
        return np.arange(self.levels[-1].start, self.levels[-1].stop)

    def steps(self, node: int) -> list[tuple[str, int, int]]:
        """Return how a form is computed: (operator, left, right); numbers are 0..n-1, the result of step i is n+i."""
        steps: list[tuple[str, int, int]] = []

        def place(node: int) -> int:
            if node < self.n:
                return node
            sides = place(int(self.left[node])), place(int(self.right[node]))
            steps.append((chr(self.operator[node]), *sides))
            return self.n + len(steps) - 1

        place(node)
        return steps


@lru_cache(maxsize=32)
def forms_of(n: int, operators: str) -> Forms:
    """Return the forms of n numbers that have no operator but these; the newest stands last.

    Forms are told apart by their values at two random points modulo 2^31 - 1: for 793,002 forms the chance that any two
    are taken for one is below 1e-6, and the counts are those that are known.

    Cost: 6 numbers and four operators take about 3 s and 100 MB; 5 take 0.1 s.
    """
    operator, left, right = [np.zeros(n, np.uint8)], [np.full(n, -1, np.int32)], [np.full(n, -1, np.int32)]
    values, quotient = [_POINTS[:, :n]], [np.zeros(n, bool)]
    nodes_of = {1 << place: np.array([place], np.int32) for place in range(n)}
    n_nodes, levels = n, []
    for size in range(2, n + 1):
        start = n_nodes
        value, is_quotient = np.concatenate(values, axis=1), np.concatenate(quotient)
        for chosen in (mask for mask in range(1 << n) if mask.bit_count() == size):
            signs, lefts, rights = _pairs(chosen, nodes_of, operators, is_quotient)
            found = _joined(signs, value[:, lefts], value[:, rights])
            keys, first = np.unique(_key(found), return_index=True)
            divided = np.isin(keys, _key(found[:, signs == ord("/")]))
            order = np.argsort(first)
            first = first[order]
            nodes_of[chosen] = np.arange(n_nodes, n_nodes + len(first), dtype=np.int32)
            n_nodes += len(first)
            for parts, new in ((operator, signs), (left, lefts), (right, rights)):
                parts.append(new[first])
            values.append(found[:, first])
            quotient.append(divided[order])
        levels.append(slice(start, n_nodes))
    without = _keys_of(n, operators[:-1])
    parts = map(np.concatenate, (operator, left, right))
    return Forms(n, *parts, tuple(levels), _turns(operators), np.isin(_key(values[-1]), without))


def count_solutions(numbers: np.ndarray, targets: np.ndarray, operators: str) -> tuple[np.ndarray, np.ndarray]:
    """Return how many different solutions each problem has, and how many without the newest operator.

    Solutions differ as forms do; swapping equal numbers makes no difference. All arithmetic is exact.

    Args:
        numbers: whole numbers [n_problems, n]. targets: [n_problems]. operators: the newest last.

    Returns:
        int64 [n_problems] each.

    Cost: with four operators about 3 µs a problem of 3 numbers, 30 µs with 4, 1 ms with 5, 50 ms with 6.
    """
    n = numbers.shape[1]
    ordered = np.sort(numbers, axis=1)
    counts, without = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.int64)
    patterns, pattern_of = np.unique(ordered[:, 1:] == ordered[:, :-1], axis=0, return_inverse=True)
    forms = forms_of(n, operators)
    n_inner = forms.levels[-1].start
    n_rows = max(1, min(4096, _BLOCK // n_inner))
    for number, pattern in enumerate(patterns):
        kept = representatives(n, operators, tuple(pattern.tolist()))
        rows = np.flatnonzero(pattern_of.ravel() == number)
        for part in np.split(rows, range(n_rows, len(rows), n_rows)):
            for nodes, hit in _hits(forms, kept, ordered[part], targets[part]):
                counts[part] += hit.sum(0)
                without[part] += hit[forms.without_newest[nodes - n_inner]].sum(0)
    return counts, without


def solving_nodes(numbers: np.ndarray, target: int, operators: str) -> np.ndarray:
    """Return the nodes of `forms_of` that solve one problem; `numbers` [n] ascend. Each solution has one node."""
    forms = forms_of(len(numbers), operators)
    pattern = tuple((numbers[1:] == numbers[:-1]).tolist())
    kept = representatives(len(numbers), operators, pattern)
    hits = _hits(forms, kept, numbers[None], np.array([target], dtype=numbers.dtype))
    return np.sort(np.concatenate([nodes[hit[:, 0]] for nodes, hit in hits]))


@lru_cache(maxsize=128)
def representatives(n: int, operators: str, equal: tuple[bool, ...]) -> np.ndarray:
    """Return one form of each set that swapping equal numbers turns into each other, as nodes.

    Args:
        n, operators: as for `forms_of`.
        equal: whether number i of those in ascending order equals number i + 1 [n - 1].
    """
    forms = forms_of(n, operators)
    group = np.concatenate([[0], np.cumsum(~np.array(equal, bool))])
    own = _key(_values(forms, _POINTS[:, :n]))
    least = np.ones(len(own), bool)
    for order in permutations(range(n)):
        if order != tuple(range(n)) and (group[list(order)] == group).all():
            least &= own <= _key(_values(forms, _POINTS[:, list(order)]))
    return forms.whole[least]


def exact_dtype(n: int, largest: int, target: int) -> type:
    """Return an integer type in which forms of n numbers up to `largest` can be compared with a target exactly."""
    # numerators and denominators of n numbers: b(1) = largest, b(i + j) <= 2 b(i) b(j)
    return np.int64 if 2 ** (n - 1) * max(largest, 1) ** n * max(target, 1) < 2**63 else object


def _turns(operators: str) -> bool:
    return "/" in operators and "*" not in operators


def _pairs(
    chosen: int, nodes_of: dict[int, np.ndarray], operators: str, is_quotient: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all (operator, left, right) that join the numbers of the mask `chosen`.

    Where there is `*`, nothing is divided by a quotient: a / (b / c) is a * c / b, which has a value for c = 0 too.
    """
    signs, lefts, rights = [], [], []
    lowest = chosen & -chosen
    for some in (mask for mask in nodes_of if mask & lowest and mask & chosen == mask and mask != chosen):
        ones, others = nodes_of[some], nodes_of[chosen ^ some]
        one, other = np.repeat(ones, len(others)), np.tile(others, len(ones))
        for operator in operators:
            for left, right in ((one, other), (other, one))[: 2 if operator in "-/" else 1]:
                if operator == "/" and not _turns(operators):
                    fine = ~is_quotient[right]
                    left, right = left[fine], right[fine]
                signs.append(np.full(len(left), ord(operator), np.uint8))
                lefts.append(left)
                rights.append(right)
    return np.concatenate(signs), np.concatenate(lefts), np.concatenate(rights)


def _hits(
    forms: Forms, kept: np.ndarray, numbers: np.ndarray, targets: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, part by part, nodes among `kept` and whether each reaches each problem's target, bool [nodes, problems].

    Values are pairs of a numerator and a denominator, which is 0 where something was divided by 0.
    """
    n_inner = forms.levels[-1].start
    above = np.empty((n_inner, len(numbers)), numbers.dtype)
    below = np.ones_like(above)
    above[: forms.n] = numbers.T
    for level in forms.levels[:-1]:
        nodes = np.arange(level.start, level.stop)
        for operator, some in _by_operator(forms, nodes):
            above[some], below[some] = _fractions(operator, forms, some, above, below)
    n_nodes = max(1, _BLOCK // max(1, len(numbers)))
    for operator, some in _by_operator(forms, kept):
        for nodes in np.split(some, range(n_nodes, len(some), n_nodes)):
            over, under = _fractions(operator, forms, nodes, above, below)
            yield nodes, (over == targets * under) & (under != 0)


def _by_operator(forms: Forms, nodes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    signs = forms.operator[nodes]
    return ((chr(sign), nodes[signs == sign]) for sign in np.unique(signs))


def _fractions(
    operator: str, forms: Forms, nodes: np.ndarray, above: np.ndarray, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return numerators and denominators of nodes [n_nodes, n_problems], which share their operator.

    A denominator of 0 stays 0: there is no value. Without `*` that holds for sums only: b / 0 may turn, for a / (b / 0)
    is the form of 0 / (b / a), which is 0. Where nothing helps, as in 0 / (b / 0) and b / 0 / 0, both become 0.
    """
    left, right = forms.left[nodes], forms.right[nodes]
    a, b, c, d = above[left], below[left], above[right], below[right]
    if operator == "*":
        return a * c, b * d
    if operator == "/" and forms.turns:
        return a * d * ((b != 0) | (c != 0)), b * c * ((a != 0) | (d != 0))
    if operator == "/":
        return a * d, b * c * (d != 0)
    above_both, below_both = (a * d + c * b if operator == "+" else a * d - c * b), b * d
    return (above_both * (below_both != 0) if forms.turns else above_both), below_both


def _keys_of(n: int, operators: str) -> np.ndarray:
    return _key(_values(forms_of(n, operators), _POINTS[:, :n])) if operators else np.zeros(0, np.uint64)


def _values(forms: Forms, points: np.ndarray) -> np.ndarray:
    """Return the forms of all n numbers, modulo the prime, at points [2, n]: [2, n_forms]."""
    values = np.concatenate([points, np.zeros((2, len(forms.operator) - forms.n), np.uint64)], axis=1)
    for level in forms.levels:
        values[:, level] = _joined(forms.operator[level], values[:, forms.left[level]], values[:, forms.right[level]])
    return values[:, forms.levels[-1]]


def _joined(signs: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return what operators [m] make of residues [2, m]."""
    joined = np.empty_like(left)
    for sign in np.unique(signs):
        chosen = signs == sign
        a, b = left[:, chosen], right[:, chosen]
        if sign == ord("+"):
            joined[:, chosen] = (a + b) % _PRIME
        elif sign == ord("-"):
            joined[:, chosen] = (a + (_PRIME - b)) % _PRIME
        else:
            joined[:, chosen] = a * (b if sign == ord("*") else _inverse(b)) % _PRIME
    return joined


def _inverse(values: np.ndarray) -> np.ndarray:
    """Return 1 / values modulo the prime: values^(prime - 2)."""
    inverse, exponent = np.ones_like(values), int(_PRIME) - 2
    while exponent:
        if exponent & 1:
            inverse = inverse * values % _PRIME
        values = values * values % _PRIME
        exponent >>= 1
    return inverse


def _key(values: np.ndarray) -> np.ndarray:
    """Return one number for two residues [2, m]: [m]."""
    return values[0] << np.uint64(31) | values[1]
