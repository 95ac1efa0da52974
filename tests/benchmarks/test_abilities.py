import json

import abilities


def test_dates_and_times_are_what_they_say():
    dates = {row["prompt"]: row["completion"] for row in abilities.dates()}
    assert dates["Write as a date: 3 March 2021"] == " 2021-03-03"
    assert len(dates) == 6 * 12 * 28
    times = {row["prompt"].removeprefix("Write as a time: "): row["completion"] for row in abilities.times()}
    assert times["a quarter past seven in the evening"] == " 19:15"
    assert times["ten to twelve in the morning"] == " 11:50"
    assert len(times) == 12 * 2 * 10
    assert len(set(times.values())) == len(times)


def test_each_question_has_four_choices_of_its_kind_one_of_them_right():
    rows = abilities.knowledge()
    assert len({row["prompt"] for row in rows}) == len(rows) == 63
    for row in rows:
        assert len(set(row["choices"])) == 4
        assert row["completion"] in row["choices"]


def test_rows_that_are_learned_are_not_measured_and_stay_the_same(tmp_path):
    for folder in ("once", "again"):
        abilities.write_rows(tmp_path / folder, 30, 10)
    for name in ("dates", "times"):
        train, evaluation = (
            [json.loads(line) for line in (tmp_path / "once" / f"{name}.{part}.jsonl").read_text().splitlines()]
            for part in ("train", "eval")
        )
        assert (len(train), len(evaluation)) == (30, 10)
        assert not {row["prompt"] for row in train} & {row["prompt"] for row in evaluation}
    for path in (tmp_path / "once").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
