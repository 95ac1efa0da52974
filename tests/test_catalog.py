"""What is told of a registered thing comes from its class alone."""

from everlearn.catalog import limits, options, section, summary
from everlearn.registry import find, names


def test_a_strategy_is_told_from_its_docstring_and_fields():
    ewc = find("strategy", "ewc")
    assert "Fisher" in summary(ewc)
    assert "1612.00796" in section(ewc, "Source")
    assert section(ewc, "Raises") == ""
    assert {option.name: option.default for option in options(ewc)}["strength"] == "100.0"
    assert not any(option.name.endswith("_") for option in options(ewc))


def test_limits_name_the_other_and_the_reason():
    told = dict(limits(find("strategy", "joint")))
    assert "nothing left" in told["not beside replay"]
    assert "bit for bit" in dict(limits(find("strategy", "hat")))["isolates"]
    assert "not beside a method that isolates" in dict(limits(find("strategy", "gem")))["protects"]


def test_every_strategy_has_one_line_and_a_source():
    for name in names("strategy"):
        cls = find("strategy", name)
        assert 10 < len(summary(cls)) < 250, name
        assert section(cls, "Source"), name
