"""What versions answered: kept beside their outcomes, shown where they differ, and not kept where that is asked for."""

import json
from pathlib import Path

import pytest

from everlearn.errors import StateError
from everlearn.home import Gate, Home
from everlearn.home.page import write_page
from everlearn.home.settings import settings_from
from everlearn.types import Score
from support.tasks import prompt_task

ANY = {"gate": Gate(1.0), "force": True}
SECRET = "<b>SECRET</b> [/red]\x1b"


@pytest.fixture
def taught(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes a home at version 2 whose model answers the first task rightly, then secrets."""

    def teach(**evaluation: bool) -> Home:
        tasks = prompt_task(0), prompt_task(1)
        right = {row["prompt"]: row["completion"] for row in tasks[0].evaluation}
        settings = {"model": {"name": str(llama), "adapter": {"rank": 2}}, "evaluation": evaluation, "strategies": []}
        settings |= {"learner": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01}, "device": "cpu"}
        home = Home.create(tmp_path / "home", settings=settings_from(settings))
        for known, task in zip((right, {}), tasks, strict=True):

            def generate(network, objective, prompts, *rest, known=known) -> list[str]:
                asked = [objective.tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts]
                return [known.get(question.strip(), f"{SECRET} {len(question)}") for question in asked]

            monkeypatch.setattr("everlearn.evaluation.score.generate_greedily", generate)
            home.learn(task.name, task.train, task.evaluation, **ANY)
        return home

    return teach


def test_the_items_of_a_diff_tell_both_answers(taught) -> None:
    home = taught()
    flips = [flip for flip in home.diff(1, 2).flips if flip.task == "add_0"]
    assert [flip.lost for flip in flips] == [True] * 4
    for flip in flips:
        assert (flip.answer_before, flip.right) == (flip.row["completion"], flip.row["completion"])
        assert flip.question == flip.row["prompt"]
        assert flip.answer_after.startswith(SECRET)
    assert home.check().sound


def test_the_page_shows_them_as_text(taught, tmp_path: Path) -> None:
    home = taught()
    write_page(home, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Items lost and gained since they were learned" in page
    assert "add_0: 4 lost, 0 gained." in page
    assert r"&lt;b&gt;SECRET&lt;/b&gt; [/red]\x1b" in page
    assert "<b>" not in page
    assert "Version 2: add_1, promoted" in page


def test_nothing_of_them_reaches_the_disk_where_they_are_not_kept(taught) -> None:
    home = taught(answers=False)
    home.diff(0, 2)
    home.check()
    write_page(home, home.path / "report.html")
    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert [str(path) for path in files if b"SECRET" in path.read_bytes()] == []
    assert not list(home.path.rglob("answers"))
    flips = home.diff(1, 2).flips
    assert [(flip.answer_before, flip.answer_after) for flip in flips] == [(None, None)] * 4


def test_homes_of_before_and_of_now_read_each_others_scores(taught) -> None:
    home = taught()
    files = list(home.path.rglob("scores/**/answers/*.json"))
    for path in home.path.rglob("scores/**/*.json"):
        if path not in files:
            known = set(json.loads(path.read_text())) - {"items", "measured_on", "sha256"}
            assert known == set(vars(Score("a", "b", 0, 0, 0, 0, ()))) - {"answers"}
    for path in files:
        path.unlink()
    assert {flip.answer_before for flip in home.diff(1, 2).flips} == {None}
    assert {flip.answer_after for flip in home.diff(1, 2).flips} == {None}


def test_answers_to_other_items_are_not_shown_as_answers_to_these(taught) -> None:
    home = taught()
    path = home.path / "versions" / "000002" / "scores" / "answers" / "add_0.json"
    (home.path / "versions" / "000002" / "scores" / "add_0.json").replace(path.with_name("moved"))
    score = json.loads(path.with_name("moved").read_text())
    from everlearn.files import write_sealed

    del score["sha256"]
    write_sealed(home.path / "versions" / "000002" / "scores" / "add_0.json", {**score, "items": None})
    kept = home._store.kept(2, "add_0")[0]
    assert (kept.score.outcomes, kept.score.answers) == (tuple(score["outcomes"]), ())


def test_damaged_answers_are_reported(taught) -> None:
    home = taught()
    path = home.path / "versions" / "000001" / "scores" / "answers" / "add_0.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(StateError, match=r"answers/add_0\.json: is damaged"):
        home.diff(1, 2)
    assert any(str(path) in problem for problem in home.check().problems)
