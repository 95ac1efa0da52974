"""Operator groups and spaces of problems."""

import pytest

from everlearn.errors import ConfigError
from everlearn.streams.countdown.groups import GROUPS, Space, folder_of, operators_of


def test_the_groups_and_any_others():
    assert [operators_of(group) for group in ("0", "1", "2", "3")] == ["+", "+-", "+-*", "+-*/"]
    assert [operators_of(group) for group in ("pmm", "pmd", "mmd", "amd")] == ["+-*", "+-/", "-*/", "+*/"]
    assert operators_of("*+") == "*+"  # + is the newest
    assert folder_of("pmd") == "pmd"
    assert folder_of("+*") == "plus_times"
    assert len({folder_of(group) for group in (*GROUPS, "+-*/", "-", "*/")}) == len(GROUPS) + 3


@pytest.mark.parametrize("group", ["", "4", "++", "+^", "pm"])
def test_what_is_no_group(group):
    with pytest.raises(ConfigError, match=r"countdown\.group: is no group"):
        Space(group)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sizes": ()}, "sizes: are no different sizes"),
        ({"sizes": (3, 3)}, "sizes: are no different sizes"),
        ({"sizes": (7,)}, "sizes: are no different sizes"),
        ({"max_number": 10_001}, "max_number: is out of range"),
        ({"max_number": 2_000, "sizes": (3, 6)}, "max_number: is too large for 6 numbers"),
        ({"min_number": -1}, "min_number: is out of range"),
        ({"max_target": 1.5}, "max_target: is out of range"),
        ({"min_number": 9, "max_number": 8}, "max_number: is below min_number"),
        ({"min_target": 200}, "max_target: is below min_target"),
    ],
)
def test_what_a_space_refuses(fields, message):
    with pytest.raises(ConfigError, match=message):
        Space(**fields)
