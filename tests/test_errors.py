import pytest

from everlearn.errors import ConfigError, check_choice, check_number, describe, nearest


def test_the_sentence():
    assert describe("a.b", "is wrong", 3, "Do this.") == "a.b: is wrong. Got 3. Do this."
    assert len(describe("a", "is long", "x" * 5000, "Cut it")) < 250


def test_the_nearest_name():
    assert nearest("epchs", ["epochs", "seed"]) == "Did you mean 'epochs'? "
    assert nearest("xyz", ["epochs"]) == ""


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_numbers_out_of_range(value):
    with pytest.raises(ConfigError, match=r"^x: is out of range\. Got .*at least 0 and at most 1"):
        check_number("x", value, low=0, high=1)


def test_numbers_in_range():
    for value in (0, 1, 0.5):
        check_number("x", value, low=0, high=1)
    check_number("x", 1e-9, above=0)
    with pytest.raises(ConfigError, match="above 0"):
        check_number("x", 0, above=0)


def test_choices():
    check_choice("x", "adam", ("adam", "sgd"))
    with pytest.raises(ConfigError, match=r"Did you mean 'adam'. Allowed: adam, sgd"):
        check_choice("x", "adan", ("adam", "sgd"))
