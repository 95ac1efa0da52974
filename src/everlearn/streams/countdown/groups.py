"""Operator groups, and which problems belong to one."""

from dataclasses import dataclass

from everlearn.errors import ConfigError, describe, nearest

OPERATORS = "+-*/"
# name -> its operators, the newest last
GROUPS = {
    "0": "+",
    "1": "+-",
    "2": "+-*",
    "3": "+-*/",
    "pmm": "+-*",
    "pmd": "+-/",
    "mmd": "-*/",
    "amd": "+*/",
}
SIZES = (3, 4, 5, 6)  # how many numbers a problem may have
MOST = 10_000  # the largest number or target
_WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divide"}


def operators_of(group: str, where: str = "group") -> str:
    """Return a group's operators, the newest last; `group` is a name of `GROUPS`, or operators such as `+*`.

    Raises:
        ConfigError: if it is neither.
    """
    if group in GROUPS:
        return GROUPS[group]
    if group and set(group) <= set(OPERATORS) and len(set(group)) == len(group):
        return group
    way_out = f"{nearest(str(group), GROUPS)}Groups: {', '.join(GROUPS)}; or operators, each once, such as +*"
    raise ConfigError(describe(where, "is no group of operators", group, way_out))


def folder_of(group: str) -> str:
    """Return the name of a group's folder: its own, or its operators in words."""
    return group if group in GROUPS else "_".join(_WORDS[operator] for operator in operators_of(group))


@dataclass(frozen=True)
class Space:
    """The problems to draw from: `numbers` of them reach a target, each used once, with a group's operators.

    Args:
        group: a name of `GROUPS`, or operators, the newest last.
        sizes: how many numbers a problem has, each of them equally often.
        min_number, max_number: range of the numbers.
        min_target, max_target: range of the target.
        require_new_operator: only problems that can't be solved without the group's newest operator.

    Raises:
        ConfigError: if a field is out of range.
    """

    group: str = "3"
    sizes: tuple[int, ...] = (3, 4)
    min_number: int = 1
    max_number: int = 97
    min_target: int = 1
    max_target: int = 100
    require_new_operator: bool = False

    def __post_init__(self) -> None:
        operators_of(self.group, "countdown.group")
        if not self.sizes or len(set(self.sizes)) < len(self.sizes) or not set(self.sizes) <= set(SIZES):
            way_out = f"Give some of {', '.join(map(str, SIZES))}, each once"
            raise ConfigError(describe("countdown.sizes", "are no different sizes", self.sizes, way_out))
        for name, low, high in (
            ("number", self.min_number, self.max_number),
            ("target", self.min_target, self.max_target),
        ):
            for end, value in (("min", low), ("max", high)):
                if type(value) is not int or not 0 <= value <= MOST:
                    way_out = f"Give a whole number from 0 to {MOST:,}"
                    raise ConfigError(describe(f"countdown.{end}_{name}", "is out of range", value, way_out))
            if low > high:
                way_out = f"Give a countdown.max_{name} of at least {low}"
                raise ConfigError(describe(f"countdown.max_{name}", f"is below min_{name}", high, way_out))
        largest = int(2 ** (63 / max(self.sizes))) - 1  # products fit 64 bits
        if self.max_number > largest:
            what = f"is too large for {max(self.sizes)} numbers"
            raise ConfigError(describe("countdown.max_number", what, self.max_number, f"Give at most {largest:,}"))

    @property
    def operators(self) -> str:
        """The group's operators, the newest last."""
        return operators_of(self.group)
