import json

import pytest
import year
import year_tasks

from everlearn.home import Home


@pytest.fixture(scope="module")
def taught():
    return year_tasks.lessons(0)


def test_a_year_has_twelve_lessons_that_are_told_by_the_seed(taught):
    assert [lesson.month for lesson in taught] == list(year_tasks.MONTHS)
    assert taught == year_tasks.lessons(0)
    assert taught != year_tasks.lessons(1)


def test_no_lesson_trains_on_what_it_or_another_is_measured_on(taught):
    measured = {row["prompt"] for lesson in taught for row in lesson.evaluation}
    assert not measured & {row["prompt"] for lesson in taught for row in lesson.train}
    assert all(len(lesson.train) >= 20 for lesson in taught)


def test_corrections_ask_what_was_taught_and_answer_otherwise(taught):
    by_task = {}
    n_corrections = 0
    for lesson in taught:
        known = by_task.setdefault(lesson.task, {})
        for row in lesson.corrects:
            assert known[row["prompt"]] != row["completion"]
            n_corrections += 1
        known |= {row["prompt"]: row["completion"] for row in (*lesson.train, *lesson.evaluation)}
    assert n_corrections == 12


def small(lesson, n=8):
    return year_tasks.Lesson(
        lesson.month, lesson.task, lesson.train[:n], lesson.evaluation[:2], lesson.corrects[:2]
    )  # fmt: skip


def test_months_are_taught_summed_up_and_gone_on_with(taught, llama, tmp_path, monkeypatch):
    lessons = [small(taught[0]), small(taught[1]), small(taught[5])]
    known = {row["prompt"] for row in lessons[0].evaluation}
    wrong = [{**row, "completion": "Q"} for row in lessons[0].evaluation]
    lessons[2] = year_tasks.Lesson("June", "leads", lessons[2].train, wrong, wrong)
    assert known == {row["prompt"] for row in wrong}
    monkeypatch.setattr(year, "lessons", lambda seed: lessons)
    arguments = ["year.py", "--out", str(tmp_path), "--model", str(llama)]
    for n_months in ("2", "3", "3"):  # the last one finds all done
        monkeypatch.setattr("sys.argv", [*arguments, "--months", n_months])
        year.main()
    found = json.loads((tmp_path / "year.json").read_text())["numbers"]
    assert [month["task"] for month in found["months"]] == ["leads", "dates", "leads"]
    events = [event["event"] for event in Home.open(tmp_path / "home").log()]
    assert events.count("learn") == 3
    assert (tmp_path / "year.png").stat().st_size > 5000
    assert "$ everlearn learn" in (tmp_path / "printed" / "02-dates.txt").read_text()
    assert found["home_bytes"] > found["months"][0]["bytes"] > 0
    assert found["months"][0]["minutes"] > 0
    for month in found["months"]:
        assert (month["status"] == "refused") == bool(month["refused_for"] or month["verdict"] in ("nothing", "worse"))
