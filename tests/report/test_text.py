import math

import pytest

from everlearn.report import text


@pytest.mark.parametrize(
    ("value", "signed", "expected"),
    [
        (0.4123, False, "0.412"),
        (-0.2, False, "−0.200"),
        (0.2, True, "+0.200"),
        (-1e-9, True, "0.000"),
        (None, True, "–"),
    ],
)
def test_number(value, signed, expected):
    assert text.number(value, signed) == expected


def test_estimate_leaves_out_an_unknown_interval():
    assert text.estimate({"mean": 0.5, "low": 0.4, "high": 0.6}) == ("0.500", "[0.400, 0.600]")
    assert text.estimate({"mean": 0.5, "low": None, "high": None}) == ("0.500", "")
    assert text.estimate(None) == ("–", "")


def test_p_is_never_zero():
    assert [text.p_text(p) for p in (0.0, 0.0123, math.nan)] == ["< 0.001", "0.012", "–"]


def test_units():
    assert [text.duration(s) for s in (12.34, 90, 7200)] == ["12.3 s", "1.5 min", "2 h"]
    assert [text.count(n) for n in (950, 12_340, 4_500_000)] == ["950", "12.3 k", "4.5 M"]
    assert [text.size(n) for n in (0, 1536, 3 * 2**20)] == ["0 B", "1.5 KiB", "3 MiB"]


def test_short_keeps_both_ends():
    assert text.short("task", 10) == "task"
    found = text.short("dataset_with_long_name_7", 12)
    assert len(found) == 12
    assert found.startswith("dataset")
    assert found.endswith("e_7")
    assert text.short("a\n b", 10) == "a b"
