import datetime
import json
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from everlearn.streams.files import load_task
from everlearn.streams.labels import BadRow
from everlearn.streams.values import notes_on, storable

DAY = datetime.date(2024, 2, 29)
MOMENT = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (MOMENT, "2024-02-29T12:30:00+00:00"),
        (DAY, "2024-02-29"),
        (datetime.time(9, 5), "09:05:00"),
        (datetime.timedelta(hours=30), "1 day, 6:00:00"),
        (pd.Timestamp("2024-02-29"), "2024-02-29T00:00:00"),
        (pd.NaT, None),
        (Decimal("1.10"), "1.10"),
        (Decimal("NaN"), None),
        (float("nan"), None),
        (-float("inf"), None),
        (b"\x00\xff", "AP8="),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (np.float32(0.5), 0.5),
        (np.datetime64("2024-02-29"), "2024-02-29"),
        (np.array([[1, 2]]), [[1, 2]]),
        ((1, float("nan")), [1, None]),
        ({3, 1}, [1, 3]),
        ({"at": DAY, 2: [DAY]}, {"at": "2024-02-29", "2": ["2024-02-29"]}),
    ],
)
def test_what_json_lacks_becomes_text_null_or_a_list(value, wanted):
    found = storable(value, "column")
    assert found == wanted
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert storable(found, "column") == found


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "text", [1, "a"], {"a": None}])
def test_what_json_has_stays_and_nothing_is_said(value):
    changes = set()
    assert storable(value, "column", changes) == value
    assert changes == set()
    assert notes_on("task 'a'", {"column": changes}) == ()


def test_other_things_are_refused_by_name():
    with pytest.raises(BadRow, match="photo holds a value that can't be stored: object"):
        storable({"inner": object()}, "photo")


def test_extra_columns_are_read_as_they_are_stored_and_a_note_says_so():
    rows = [
        {"prompt": f"{i}=", "completion": str(i), "when": MOMENT, "price": Decimal(i), "share": i / 2} for i in range(9)
    ]
    rows[3]["share"] = float("nan")
    task = load_task("bills", rows[:6], rows[6:], extra_columns=["when", "price", "share"])
    assert task.evaluation[0]["when"] == "2024-02-29T12:30:00+00:00"
    assert task.evaluation[0]["price"] == "6"
    assert task.train[3]["share"] is None
    assert task.notes == (
        "task 'bills': column 'when' keeps dates and times as ISO 8601 text: rows are stored as JSON",
        "task 'bills': column 'price' keeps Decimal as text: rows are stored as JSON",
        "task 'bills': column 'share' keeps numbers that are not finite as null: rows are stored as JSON",
    )
