"""The home as its user meets it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from everlearn.errors import ConfigError, ModelError, StateError, StreamError
from everlearn.files import locked
from everlearn.home import Gate, Home
from everlearn.home.store import Store, files_in
from everlearn.models.load import AdapterConfig, ModelConfig
from support.home import rows

ROWS = rows(("cat", "dog"), 40)
THIRD = (rows(("one", "two"), 12), rows(("one", "two"), 6, 40))
THIRD_AS_COLOURS = [{"text": row["text"], "label": "red"} for row in THIRD[1]]
ANY = Gate(1.0)
FOURTH = (rows(("a", "good"), 12), rows(("a", "good"), 6, 40))


def test_new_home_has_the_untouched_model(llama: Path, tmp_path: Path) -> None:
    config = ModelConfig(str(llama), AdapterConfig(rank=2))
    home = Home.create(tmp_path / "home", config, learner={"epochs": 1}, strategies="replay")
    assert home.settings.strategies == ["replay"]
    assert Home.is_home(tmp_path / "home")
    assert not Home.is_home(tmp_path)
    opened = Home.open(tmp_path / "home")
    assert opened.settings == home.settings
    assert (opened.current, [record.status for record in opened.versions()]) == (0, ["initial"])
    assert [event["event"] for event in opened.log()] == ["init"]
    with pytest.raises(StateError, match="has learned nothing to export"):
        opened.export(tmp_path / "out")
    with pytest.raises(StateError, match="the folder is not empty"):
        Home.create(tmp_path / "home", config)


def test_no_home_is_left_where_making_one_failed(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        Home.create(tmp_path / "home", "no-one/has-this-model")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StateError, match="there is no home in the folder"):
        Home.open(tmp_path / "home")


def test_versions_never_change(home: Home) -> None:
    before = files_in(home.path / "versions")
    home.learn("third", *THIRD, gate=Gate(1.0))
    home.diff(0, 3)
    home.check()
    home.rollback(1)
    after = files_in(home.path / "versions")
    assert after.items() >= before.items()
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"000003"}


def test_forgetting_is_refused_by_the_default_gate(bert: Path, tmp_path: Path) -> None:
    model = {"name": str(bert), "adapter": {"name": "full"}, "head": "shared"}
    learner = {"epochs": 12, "batch_size": 4, "learning_rate": 0.003}
    home = Home.create(tmp_path / "home", model, learner=learner, strategies=[])
    flipped = [{"text": row["text"], "label": {"cat": "dog", "dog": "cat"}[row["label"]]} for row in ROWS]
    assert home.learn("kept", ROWS[:16], ROWS[16:]).score.value == 1.0
    also = [[{**row, "text": f"a {row['text']}"} for row in part] for part in (flipped[:16], flipped[16:])]
    report = home.learn("opposite", *also)
    verdict = report.gate.verdicts[0]
    assert (report.status, verdict.refused, verdict.undecided, home.current) == ("refused", True, False, 1)
    assert verdict.change.difference < -0.5
    assert home.check().drifts[0].change.difference == 0.0


def test_refused_version_stays_for_inspection(home: Home) -> None:
    report = home.learn("third", *THIRD, gate=Gate(0.02, "safe"))
    assert (report.status, report.promoted, home.current) == ("refused", False, 2)
    assert home.diff(2, 3).changes[-1].task == "third"
    assert home.log()[-1]["lost"] == ["colours", "animals"]
    with pytest.raises(StateError, match=r"was refused by the gate.*--force"):
        home.rollback(3)
    home.rollback(3, force=True)
    assert home.current == 3
    assert home.log()[-1]["forced"] is True


@pytest.mark.filterwarnings("ignore:task 'third'. labels in evaluation")
def test_a_refused_learning_leaves_no_law(home: Home, tmp_path: Path) -> None:
    assert home.learn("third", *THIRD, gate=Gate(0.02, "safe")).status == "refused"
    assert not (home.path / "tasks" / "third").exists()
    other = [{**row, "label": {"one": "uno", "two": "dos"}[row["label"]]} for row in THIRD[1]]
    trained_on_items = [{"text": f"{row['text']} {i}", "label": "uno"} for i, row in enumerate(THIRD[0])] + THIRD[1]
    report = home.learn("third", trained_on_items, [{**row, "text": f"so {row['text']}"} for row in other], gate=ANY)
    assert (report.status, len(report.notes)) == ("promoted", 1)
    assert "labels in evaluation that no training row has" in report.notes[0]
    assert home._versions().tasks["third"].labels == ("dos", "one", "two", "uno")
    for compare in (lambda: home.diff(4, 3), lambda: home.rollback(3, force=True)):
        with pytest.raises(StateError, match=r"version 3: took task 'third' for something else.*everlearn export"):
            compare()
    folder = home.export(tmp_path / "out", merged=True, version=3, task="third").path
    assert set(json.loads((folder / "config.json").read_text())["label2id"]) == {"one", "two"}


@pytest.mark.filterwarnings("ignore:task .* longer than 32 tokens")
def test_a_refused_version_has_its_own_items_and_brings_them_in_by_force(home: Home) -> None:
    corrected = {**rows(("red", "green"), 1, 30)[0], "label": "green"}
    new = rows(("red", "green"), 4, 60)
    report = home.learn("colours", rows(("red", "green"), 4, 12), [corrected, *new], gate=Gate(0.02, "safe"))
    assert (report.status, report.score.n) == ("refused", 12)
    assert "1 evaluation items were there already with another answer" in report.notes[0]
    assert len(home._versions().tasks["colours"].evaluation) == 8
    assert {change.task: change.n for change in home.diff(2, 3).changes} == {"animals": 8, "colours": 12}
    home.learn("third", [*THIRD[0], *[{**row, "label": "one"} for row in new]], THIRD[1], gate=ANY)
    home.rollback(3, force=True)
    assert len(home._versions().tasks["colours"].evaluation) == 12
    assert {drift.change.task: drift.change.n for drift in home.check().drifts} == {"animals": 8, "colours": 12}
    home.rollback(2)
    home.rollback(3, force=True)
    assert len(home._versions().tasks["colours"].evaluation) == 12


def test_items_are_taken_out_and_corrected(home: Home) -> None:
    versions = files_in(home.path / "versions")
    items = rows(("red", "green"), 8, 30)
    report = home.retire("colours", items[:2])
    assert (report.n_retired, report.n_corrected, report.n_items) == (2, 0, 6)
    wrong = [{**items[2], "label": "green"}, items[3]]
    with pytest.raises(StreamError, match=r"rows differ from the items.*Got 1\. Use --correct"):
        home.retire("colours", wrong)
    assert home.retire("colours", wrong, correct=True).n_corrected == 1
    with pytest.raises(StreamError, match=r"no evaluation items of the task\. Got 2\."):
        home.retire("colours", items[:2])
    with pytest.raises(StreamError, match="has labels that it had not before"):
        home.retire("colours", [{**items[3], "label": "blue"}], correct=True)
    events = [{key: event[key] for key in event if key not in ("time", "event")} for event in home.log()[-2:]]
    assert events == [
        {"version": 2, "task": "colours", "retired": 2, "items": 6},
        {"version": 2, "task": "colours", "corrected": 1, "items": 6},
    ]
    assert files_in(home.path / "versions") == versions
    learned = home.learn("colours", [*rows(("red", "green"), 4, 12), *items[:2]], [*items[4:], *THIRD_AS_COLOURS])
    assert learned.score.n == 6 + len(THIRD_AS_COLOURS)
    assert all(verdict.change.n in (8, 6 + len(THIRD_AS_COLOURS), 5) for verdict in learned.gate.verdicts)
    assert home.check().sound


def test_items_are_not_changed_while_a_learning_waits(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("everlearn.home.learning._stage", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            home.learn("third", *THIRD)
    with pytest.raises(StateError, match="learning 'third' failed"):
        home.retire("colours", rows(("red", "green"), 1, 30))


def test_force_promotes_and_is_logged(home: Home) -> None:
    report = home.learn("third", *THIRD, gate=Gate(0.02, "safe"), force=True)
    assert (report.status, report.promoted, home.current) == ("forced", True, 3)
    assert (home.log()[-1]["status"], home.log()[-1]["lost"]) == ("forced", ["colours", "animals"])


def test_rollback_goes_on_from_the_older_version(home: Home) -> None:
    home.rollback(1)
    report = home.learn("third", *THIRD, gate=Gate(1.0))
    record = home.versions()[report.version]
    assert (record.number, record.parent, record.learned) == (3, 1, ("colours", "third"))
    assert [verdict.change.task for verdict in report.gate.verdicts] == ["colours"]


def test_the_same_learning_makes_the_same_weights(home: Home, made_home: Path, tmp_path: Path) -> None:
    shutil.copytree(made_home, tmp_path / "other")
    other = Home.open(tmp_path / "other")
    for one in (home, other):
        one.learn("third", *THIRD, gate=Gate(1.0))
    first, second = (Store(one.path).state(3)["weights"] for one in (home, other))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    other.rollback(2)
    other.learn("third", *THIRD, gate=Gate(1.0), seed=5)
    third = Store(other.path).state(4)["weights"]
    assert any(not torch.equal(tensor, third[name]) for name, tensor in first.items())


def test_training_row_that_is_an_evaluation_item_is_refused(home: Home) -> None:
    files = files_in(home.path)
    measured = rows(("red", "green"), 2, 30)
    with pytest.raises(StreamError, match=r"training rows are evaluation items of tasks.* Got \{'colours': 2\}"):
        home.learn("third", [*THIRD[0], *measured], THIRD[1])
    with pytest.raises(StreamError, match=r"were trained on before, by version\. Got \{1: 1\}"):
        home.learn("third", THIRD[0], [*THIRD[1], *rows(("red", "green"), 1)])
    assert {**files_in(home.path), "lock": ""} == {**files, "lock": ""}


def test_rows_that_may_overlap_are_learned_and_told_of(home: Home) -> None:
    measured = rows(("red", "green"), 2, 30)
    both = ([*THIRD[0], *measured], [*THIRD[1], *measured])
    with pytest.raises(StreamError, match=r"train and evaluation share rows.*allow_overlap: true"):
        home.learn("third", *both)
    report = home.learn("third", *both, options={"allow_overlap": True}, gate=Gate(1.0))
    assert "task 'third': rows of it that are evaluation items of 'colours': 2 (allow_overlap is set)." in report.notes
    assert home.versions()[-1].notes == list(report.notes)


def test_rows_are_held_out_for_early_stopping_only_where_it_can_act(home: Home) -> None:
    numbered = [[{"text": f"{word} {i}", "label": "no"} for i in range(60)] for word in ("is", "a")]
    report = home.learn("third", numbered[0], gate=Gate(1.0))
    data = home.versions()[-1].data
    assert (data["n_validation"], data["n_train"] + data["n_evaluation"]) == (0, 60)
    assert report.notes == (f"task 'third': of 60 rows, {data['n_evaluation']} are held out for evaluation.",)
    with pytest.warns(UserWarning, match="stopped after 3 of 4 epochs"):
        home.learn("fourth", numbered[1], learner={"epochs": 4, "patience": 2}, gate=Gate(1.0))
    assert home.versions()[-1].data["n_validation"] > 0


def test_no_memory_holds_an_evaluation_item(home: Home) -> None:
    memory = Store(home.path).state(2)["strategies"]["replay"]["memory_"]
    kept = {row["text"] for stored in memory.values() for row in stored["rows"]}
    measured = {row["text"] for task in ("colours", "animals") for row in home._versions().tasks[task].evaluation}
    assert kept
    assert not kept & measured


def test_a_memory_on_disk_belongs_to_the_versions_that_refer_to_it(home: Home) -> None:
    def files(number: int) -> set[str]:
        return {Path(name).name for name in home.versions()[number].files if "memory" in name}

    def present() -> set[str]:
        return {path.name for path in (home.path / "memory").iterdir()}

    on_disk = {"strategies": [{"name": "replay", "capacity": 8, "on_disk": True}], "gate": Gate(1.0)}
    home.learn("third", *THIRD, **on_disk)
    assert len(files(3)) == 3
    assert files(3) == present()
    home.learn("fourth", *FOURTH, **on_disk)
    assert files(4) | files(3) == present()
    home.rollback(3)
    with pytest.raises(ConfigError, match="replay"):
        home.learn("fifth", *THIRD, **{**on_disk, "strategies": [{"name": "replay", "capacity": -1}]})
    kept = home.learn("third", *THIRD, strategies=[], gate=Gate(1.0))  # replay rests, its memory stays
    assert files(kept.version) == files(3)
    weights = Store(home.path).state(home.learn("fourth", *FOURTH, **on_disk).version)["weights"]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert home.check().sound
    path = home.path / "memory" / sorted(files(3))[0]
    path.write_bytes(path.read_bytes()[:-4])
    assert any("is damaged" in problem and path.name in problem for problem in home.check().problems)
    with pytest.raises(StateError, match="is damaged"):
        home.rollback(3)


def test_an_abandoned_learning_leaves_no_memory_behind(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk = {"strategies": [{"name": "replay", "on_disk": True}], "gate": Gate(1.0)}
    with monkeypatch.context() as patch:
        patch.setattr("everlearn.home.learning._stage", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            home.learn("third", *THIRD, **on_disk)
    assert list((home.path / "memory").iterdir())
    home.learn("third", *THIRD, strategies=["ewc"], gate=Gate(1.0), discard_pending=True)
    assert not list((home.path / "memory").iterdir())


def test_damaged_version_is_not_learned_on(home: Home) -> None:
    path = home.path / "versions" / "000002" / "state" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(StateError, match=r"tensors\.safetensors: is damaged"):
        home.learn("third", *THIRD)
    with pytest.raises(StateError, match="is damaged"):
        home.rollback(2)
    home.rollback(1)
    assert home.learn("third", *THIRD, gate=Gate(1.0), discard_pending=True).version == 3


def test_full_disk_leaves_the_current_version(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("everlearn.state.save_file", full)
        with pytest.raises(StateError, match="No space left on device"):
            home.learn("third", *THIRD, gate=Gate(1.0))
    assert home.current == 2
    assert Home.open(home.path).resume().status == "promoted"


def test_two_cannot_change_a_home_at_once(home: Home) -> None:
    with locked(home.path / "lock"):
        with pytest.raises(StateError, match=r"another process is changing this home\. Got 'pid \d+'"):
            home.learn("third", *THIRD)
        with pytest.raises(StateError, match="another process"):
            home.rollback(1)
        assert Home.open(home.path).current == 2
        assert home.diff(1, 1).flips == ()


def test_changed_base_is_refused(home: Home, bert: Path, tmp_path: Path) -> None:
    other = shutil.copytree(bert, tmp_path / "base")
    path = home.path / "home.json"
    content = json.loads(path.read_text())
    content["settings"]["model"]["name"] = str(other)
    path.write_text(json.dumps(content))
    assert Home.open(home.path).diff(1, 1).flips == ()  # moved, but the same
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 0.5}))
    moved = Home.open(home.path)
    for use in (lambda: moved.learn("third", *THIRD), lambda: moved.diff(1, 2), lambda: moved.export(tmp_path / "out")):
        with pytest.raises(ModelError, match=r"is not the one that this home was made with\. Got \['config\.json'\]"):
            use()


def test_bad_options_fail_before_anything_is_laid_down(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"learner\.epoch: is unknown"):
        home.learn("third", *THIRD, learner={"epoch": 3})
    with pytest.raises(ConfigError, match="the name can't be used"):
        home.learn("../third", *THIRD)
    with pytest.raises(ConfigError, match="Did you mean 'replay'"):
        home.learn("third", *THIRD, strategies=["reply"])
    with pytest.raises(ConfigError, match="a metric doesn't fit"):
        home.learn("third", *THIRD, options={"metrics": ["exact_match"]})
    with pytest.raises(ConfigError, match="different kinds of model"):
        home.learn("third", [{"text": "running text"}, {"text": "more"}], [{"text": "other text"}])
    assert not (home.path / "pending").exists()


def test_exported_version_answers_as_the_home_does(home: Home, tmp_path: Path) -> None:
    folder = home.export(tmp_path / "out", merged=True, version=1, task="colours").path
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    versions = home._versions()
    run = versions.open(1, versions.learned_tasks(1))
    task = versions.tasks["colours"]
    features = run.model.objective.encode(task.evaluation, task)
    batch = run.model.objective.collate(run.model.objective.take(features, list(range(4))))
    with torch.no_grad(), run.model.evaluating():
        expected = run.model.objective.forward(run.model.network, batch).logits
        inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "tasks")}
        torch.testing.assert_close(network(**inputs).logits, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="each task has a head of its own"):
        home.export(tmp_path / "other", merged=True)
    with pytest.raises(StateError, match="there is no such version"):
        home.export(tmp_path / "other", version=9)
