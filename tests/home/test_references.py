"""What a new version is compared with, in a home that was learned through and in one whose scores are made by hand."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from everlearn.errors import StateError
from everlearn.files import read_sealed, write_sealed
from everlearn.home import Gate, Home
from everlearn.home.gate import judge_all
from everlearn.home.references import (
    Reference,
    References,
    comparisons_of,
    find_references,
    has_stand_in,
    references_from,
    references_values,
)
from everlearn.home.store import VERSION_FILE
from everlearn.home.versions import Versions
from everlearn.home.views import outcome_sentence
from everlearn.types import Score, Task
from support.home import rows


@pytest.fixture
def versions(home: Home) -> Versions:
    """The made home with two empty versions after the second one, and no score kept."""
    second = read_sealed(home.path / "versions" / "000002" / VERSION_FILE)
    shutil.rmtree(home.path / "versions" / "000001" / "scores")
    for number in (2, 3, 4):
        folder = home.path / "versions" / f"{number:06d}"
        shutil.rmtree(folder / "scores", ignore_errors=True)
        folder.mkdir(exist_ok=True)
        record = {**second, "number": number, "parent": number - 1, "task": "animals"}
        write_sealed(folder / VERSION_FILE, {**record, "gate": {"tolerance": 0.02, "rule": "point", "verdicts": []}})
    return home._versions()


def score(n_right: int, n: int = 8, task: str = "colours", metric: str = "accuracy") -> Score:
    return Score(task, metric, n_right / n, None, None, n, (1.0,) * n_right + (0.0,) * (n - n_right))


def keep(
    versions: Versions, number: int, kept: Score, items: list[str] | None = None, where: str | None = None
) -> None:
    folder = versions.store.folder(number) / "scores"
    named = versions.items(kept.task) if items is None else items
    versions.store.keep_score(folder, kept, named, where or versions.measured_on())


def found(versions: Versions, now: Score, gate: Gate | None = None) -> References:
    before = {"colours": now, "animals": score(4, task="animals")}
    return find_references(versions, gate or Gate(), 4, before)["colours"]


def change(versions: Versions, number: int, **values: object) -> None:
    path = versions.store.folder(number) / VERSION_FILE
    write_sealed(path, {**read_sealed(path), **values})


def test_the_best_before_is_found_back_to_where_the_task_was_learned(versions: Versions) -> None:
    for number, n_right in ((1, 6), (2, 8), (3, 5)):
        keep(versions, number, score(n_right))
    now = found(versions, score(4))
    assert [(one.version, one.score.value, one.n_chosen_from) for one in now.own] == [(4, 0.5, 0), (2, 1.0, 3)]
    assert (now.n_tests, now.stand_ins, now.notes) == (2, (), ())
    assert [one.version for one in found(versions, score(8)).own] == [4]
    change(versions, 3, task="colours")
    assert [(one.version, one.n_chosen_from) for one in found(versions, score(4)).own] == [(4, 0), (3, 1)]
    change(versions, 4, task="colours")
    assert found(versions, score(4)).n_tests == 1


@pytest.mark.parametrize(("gate", "refused", "kept"), [(0.02, True, 3), (0.5, False, 3), (0.02, False, 2)])
def test_a_loss_that_was_accepted_begins_anew(versions: Versions, gate: float, refused: bool, kept: int) -> None:
    for number, n_right in ((1, 8), (2, 8), (3, 5)):
        keep(versions, number, score(n_right))
    verdict = {"change": {"task": "colours", "difference": -0.375}, "refused": refused}
    change(versions, 3, gate={"tolerance": gate, "rule": "point", "verdicts": [verdict]})
    assert found(versions, score(4)).own[-1].version == kept


def test_scores_are_compared_on_the_items_of_both(versions: Versions) -> None:
    items = versions.items("colours")
    keep(versions, 3, score(4, 4), [*items[2:5], "gone"])
    now = found(versions, score(4))
    best = now.own[1]
    assert (best.version, best.items, best.score.outcomes) == (3, (2, 3, 4), (1.0, 1.0, 1.0))
    comparisons = comparisons_of(Gate(), {"colours": now}, {"colours": score(3)}, {})
    assert [(one.before.outcomes, one.after.outcomes) for one in comparisons][1] == ((1.0, 1.0, 1.0), (1.0, 0.0, 0.0))
    assert judge_all(Gate(), comparisons, now.n_tests).verdicts[1].change.n == 3


def test_what_was_measured_elsewhere_is_measured_again_or_left_out(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(versions, 2, score(8), where="elsewhere")
    monkeypatch.setattr(versions, "scores", lambda number, names, stand_in: {"colours": score(7)})
    assert found(versions, score(4)).own[1].score.value == 7 / 8

    def damaged(*arguments: object, **named: object) -> None:
        raise StateError("it is damaged.")

    monkeypatch.setattr(versions, "scores", damaged)
    left = found(versions, score(4))
    assert len(left.own) == 1
    assert left.notes == (
        "colours: version 2, the best before, can't be measured again and is left out. it is damaged.",
    )


def test_references_survive_json(versions: Versions) -> None:
    keep(versions, 3, score(7))
    kept = {"colours": found(versions, score(4))}
    assert references_from(references_values(kept)) == kept


def test_log_likelihood_takes_the_place_of_a_metric_that_can_not_fall() -> None:
    likely = replace(score(0), metric="token_log_likelihood", outcomes=(-0.5, -0.4) * 4)
    forgotten = replace(likely, outcomes=(-3.0, -2.5) * 4)
    blind = References((Reference(1, score(0)),), (Reference(1, likely),))
    (one,) = comparisons_of(Gate(), {"colours": blind}, {"colours": score(0)}, {"colours": forgotten})
    assert (one.stands_in, one.unguarded, one.before, one.after) == (True, False, likely, forgotten)
    (rose,) = comparisons_of(Gate(), {"colours": blind}, {"colours": score(6)}, {})
    assert (rose.stands_in, rose.before.value, rose.after.value) == (False, 0.0, 0.75)
    nothing = References((Reference(1, score(0)),))
    (alone,) = comparisons_of(Gate(), {"colours": nothing}, {"colours": score(0)}, {"colours": forgotten})
    assert alone.unguarded
    better = References((Reference(4, score(0)), Reference(1, score(5), None, 2)), (Reference(4, likely),))
    both = comparisons_of(Gate(), {"colours": better}, {"colours": score(0)}, {"colours": forgotten})
    assert [(c.version, c.stands_in, c.unguarded) for c in both] == [
        (4, False, False),
        (1, False, False),
        (4, True, False),
    ]


def test_only_prompts_have_a_stand_in() -> None:
    def task(kind: str, *metrics: str) -> Task:
        return Task("t", kind, [], [], metrics=metrics)

    assert has_stand_in(task("prompt"))
    assert has_stand_in(task("prompt", "choice", "token_log_likelihood"))
    for other in (task("prompt", "perplexity"), task("text"), task("classify"), task("tag")):
        assert not has_stand_in(other)


PROMPTS = [{"prompt": f"say {word}", "completion": "yes no yes no"} for word in ("cat", "dog", "one", "two", "red")]


@pytest.mark.filterwarnings("ignore:task .* can never be right")
def test_a_home_guards_answers_that_are_never_right_by_their_likelihood(llama: Path, tmp_path: Path) -> None:
    learner = {"epochs": 30, "batch_size": 5, "learning_rate": 0.03}
    home = Home.create(tmp_path / "home", str(llama), learner=learner, strategies=[])
    measured = [{**row, "prompt": f"{row['prompt']} now"} for row in PROMPTS]
    options = {"max_new_tokens": 1}
    first = home.learn("reply", PROMPTS, measured, options=options)
    assert first.score.value == 0.0
    assert "The gate will compare log-likelihoods in its place" in first.notes[-1]
    assert "Version 1 is current, though no answer is right yet" in outcome_sentence(first, "home")
    assert (home.path / "versions" / "000001" / "scores" / "log_likelihood" / "reply.json").exists()
    swapped = [{"prompt": f"now {row['prompt']}", "completion": "two two two two"} for row in PROMPTS]
    report = home.learn("other", swapped[:4], swapped[4:], options=options)
    (verdict,) = report.gate.verdicts
    assert (report.status, verdict.stands_in, verdict.change.metric) == ("refused", True, "token_log_likelihood")
    assert verdict.change.before > verdict.change.after + 1
    assert [change.metric for change in home.diff(1, 2).changes if change.task == "reply"] == [
        "exact_match",
        "token_log_likelihood",
    ]
    assert [drift.change.difference for drift in home.check().drifts if drift.learned_in] == [0.0, 0.0]


def test_a_label_that_is_never_right_is_told_to_be_unguarded(home: Home) -> None:
    ones, twos = rows(("one", "one"), 8), [{**row, "label": "two"} for row in rows(("one", "one"), 4, 40)]
    first = home.learn("third", ones, twos, gate=Gate(1.0), force=True)
    assert first.score.value == 0.0
    assert any("The gate can't guard the task" in note for note in first.notes)
    report = home.learn("fourth", ones, [{**row, "text": f"a {row['text']}"} for row in ones], gate=Gate(0.6))
    verdict = report.gate.verdicts[-1]
    assert (verdict.change.task, verdict.change.after, verdict.unguarded) == ("third", 0.0, True)
    assert home.versions()[-1].gate["verdicts"][-1]["unguarded"] is True
