"""What the base model could do, watched by a home: made once, guarded by the gate, safe from crashes and damage."""

import json
import shutil
from pathlib import Path

import pytest
from tests.home.test_views import shown

from everlearn.errors import ConfigError, StateError, StreamError
from everlearn.evaluation.abilities import Abilities
from everlearn.home import Gate, Home
from everlearn.home.abilities import read_probes
from everlearn.home.comparing import find_problems
from everlearn.home.settings import settings_from
from everlearn.home.store import files_in
from everlearn.home.views import drift_table, gate_sentences, gate_table, log_table
from support.home import moments_of, rows
from support.tasks import prompt_task

LEARNER = {"epochs": 2, "batch_size": 4, "learning_rate": 0.02}
TASK = prompt_task(0)
SELF = "abilities/self"


def create(path: Path, llama: Path, *abilities: str, adapter: str = "lora") -> Home:
    model = {"name": str(llama), "adapter": {"name": "lora", "rank": 4} if adapter == "lora" else {"name": adapter}}
    settings = {"model": model, "learner": LEARNER, "strategies": [], "device": "cpu"}
    settings |= {"evaluation": {"abilities": list(abilities)}} if abilities else {}
    return Home.create(path, settings=settings_from(settings))


def learn(home: Home, number: int = 0, **options):
    task = prompt_task(number)
    return home.learn(task.name, task.train, task.evaluation, **{"gate": Gate(1.0), "force": True, **options})


@pytest.fixture(scope="module")
def made(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home at version 1 that watches `self`, the default. Not to be changed."""
    path = tmp_path_factory.mktemp("abilities") / "home"
    report = learn(create(path, llama))
    assert report.status == "promoted"
    return path


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Home:
    shutil.copytree(made, tmp_path / "home")
    return Home.open(tmp_path / "home")


def test_a_loss_is_told_and_refused_only_where_the_gate_is_to_be_safe(home: Home, tmp_path: Path) -> None:
    first = home.versions()[1]
    (verdict,) = first.gate["abilities"]
    assert (verdict["change"]["task"], verdict["version"], verdict["change"]["n"]) == (SELF, 0, 32)
    assert abs(verdict["change"]["before"]) < 1e-3  # the base itself
    assert verdict["change"]["after"] < -0.05
    assert (verdict["refused"], first.status, first.gate["abilities_tolerance"]) == (True, "promoted", 0.05)
    assert home.log()[-1]["warned"] == [SELF]
    assert f"lost much of {SELF}" in shown(log_table(home.log(), 1))
    home.rollback(0)
    report = learn(home, force=False, gate=Gate(1.0, "safe"))
    assert (report.status, list(report.gate.lost), report.gate.warned) == ("refused", [SELF], [])
    assert "refused: lost too much" in shown(gate_table(report.gate))
    assert home.log()[-1]["against"] == {SELF: [0]}
    wide = learn(home, force=False, gate=Gate(1.0, "safe", abilities=100.0))
    assert (wide.status, wide.gate.lost) == ("promoted", {})
    assert not wide.gate.abilities[0].refused


def test_a_loss_that_was_accepted_is_not_held_against_later_versions(home: Home) -> None:
    report = learn(home, 1)
    (verdict,) = report.gate.abilities
    assert verdict.version == 1
    assert verdict.change.before == home.versions()[1].gate["abilities"][0]["change"]["after"]
    table, sentences = shown(gate_table(report.gate)), gate_sentences(report.gate)
    assert "version 1 (its loss was accepted)" in table
    assert "of abilities 0.05" in table
    told = [one for one in sentences if one.startswith(f"{SELF}: ")]
    assert all("nats/token lost against version 1" in one or "too few" in one for one in told)
    lenient = learn(home, 1, gate=Gate(1.0, abilities=50.0))
    assert not lenient.gate.abilities[0].refused
    drifts = home.check().drifts
    assert [(drift.learned_in, drift.change.task) for drift in drifts if drift.change.metric == "negative_kl"] == [
        (0, SELF)
    ]
    assert drifts[-1].change.after == lenient.gate.abilities[0].change.after  # measured anew
    assert SELF in shown(drift_table(home.check()))


def test_probes_are_made_once_from_the_untouched_model(home: Home, llama: Path, tmp_path: Path, monkeypatch) -> None:
    before = files_in(home.path / "abilities")
    monkeypatch.setattr(Abilities, "make", lambda self, run: pytest.fail("made again"))
    learn(home, 1)
    assert files_in(home.path / "abilities") == before
    monkeypatch.undo()
    other = create(tmp_path / "full", llama, adapter="full")
    report = learn(other)
    texts = [read_probes(one._versions()).texts["ids"].tolist() for one in (home, other)]
    assert texts[0] == texts[1]  # the base wrote them, whatever was learned and however
    assert report.gate.abilities[0].change.before == pytest.approx(0, abs=1e-3)
    assert report.gate.abilities[0].change.after < -0.01


def test_files_are_copied_into_the_home_and_watched_there(llama: Path, tmp_path: Path) -> None:
    facts, prose = tmp_path / "facts.jsonl", tmp_path / "prose.txt"
    facts.write_text("".join(json.dumps(row) + "\n" for row in prompt_task(3).evaluation))
    prose.write_text("One text.\n\nAnother one.\n")
    home = create(tmp_path / "home", llama, str(facts), str(prose), "self")
    for path in (facts, prose):
        path.unlink()
    assert home.settings.evaluation.abilities == ["facts.jsonl", "prose.txt", "self"]
    shutil.move(home.path, tmp_path / "moved")
    report = learn(Home.open(tmp_path / "moved"))
    assert [(verdict.change.task, verdict.change.metric, verdict.change.n) for verdict in report.gate.abilities] == [
        ("abilities/facts.jsonl", "exact_match", 4),
        ("abilities/prose.txt", "token_log_likelihood", 2),
        (SELF, "negative_kl", 32),
    ]
    copy = tmp_path / "moved" / "abilities" / "prose.txt"
    copy.write_text("Another text.\n")
    assert "prose.txt: is damaged" in Home.open(tmp_path / "moved").check().problems[0]
    with pytest.raises(StateError, match=r"prose\.txt: is damaged"):
        learn(Home.open(tmp_path / "moved"), 1)


def test_bad_names_make_no_home(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "a.txt", tmp_path / "other" / "a.txt"):
        path.write_text("text")
    with pytest.raises(ConfigError, match="two files have one name"):
        create(tmp_path / "home", llama, str(tmp_path / "a.txt"), str(tmp_path / "other" / "a.txt"))
    with pytest.raises(ConfigError, match="Did you mean 'self'"):
        create(tmp_path / "home", llama, "slef")
    with pytest.raises(StreamError, match="can't be read"):
        create(tmp_path / "home", llama, str(tmp_path / "none.txt"))
    assert not (tmp_path / "home").exists()


def test_homes_that_watch_nothing_have_no_such_line(home: Home, made_home: Path, llama: Path, tmp_path: Path) -> None:
    assert not (made_home / "abilities").exists()  # a classifier doesn't write
    assert json.loads((made_home / "home.json").read_text())["settings"]["evaluation"]["abilities"] == ["self"]
    content = json.loads((home.path / "home.json").read_text())
    del content["settings"]["evaluation"]["abilities"]  # as homes of before
    shutil.rmtree(home.path / "abilities")
    (home.path / "home.json").write_text(json.dumps(content))
    old = Home.open(home.path)
    report = learn(old, 1)
    assert (report.gate.abilities, "abilities" in shown(gate_table(report.gate))) == ((), False)
    assert all(drift.change.task != SELF for drift in old.check().drifts)
    assert not list((home.path / "versions" / "000002").rglob("abilities"))


def test_damage_is_found(home: Home) -> None:
    for name in ("state/tensors.safetensors", "state/values.json", "made.json"):
        path = home.path / "abilities" / "made" / name
        whole = path.read_bytes()
        path.write_bytes(whole.replace(whole[-9:-8], b"~"))
        (problem,) = home.check().problems
        assert f"{name}: " in problem
        path.write_bytes(whole)
    assert home.check().sound


def test_a_crash_at_any_change_of_them_leads_to_the_same_end(llama: Path, tmp_path: Path) -> None:
    home = create(tmp_path / "home", llama)

    def end(path: Path) -> dict:
        one = Home.open(path)
        assert one.current == 1
        assert find_problems(one._versions(), one._fingerprint) == []
        assert not [found for found in path.rglob(".*.tmp")]
        parts = {"abilities": path / "abilities", "scores": path / "versions" / "000001" / "scores"}
        return {name: files_in(folder) for name, folder in parts.items()}

    disks = moments_of(home.path, lambda: learn(home), tmp_path / "moments")
    wanted, seen = end(home.path), set()
    for disk in disks:
        listing = frozenset(str(path.relative_to(disk)) for path in disk.rglob("*") if "abilities" in str(path))
        if listing in seen:
            continue
        seen.add(listing)
        one = Home.open(disk)
        if one.current == 0:
            one.resume() if (disk / "pending").exists() else learn(one)
        with one._store.changing():
            pass
        assert end(disk) == wanted
    assert len(seen) > 5


def test_training_is_the_same_with_and_without_them(home: Home, llama: Path, tmp_path: Path) -> None:
    without = create(tmp_path / "without", llama, "arena")
    with pytest.warns(UserWarning, match="solves no type of the arena's problems"):
        report = learn(without)
    assert report.gate.abilities == ()
    weights = [path / "versions" / "000001" / "state" / "tensors.safetensors" for path in (home.path, without.path)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_rows_of_a_classifier_are_learned_without_them(bert: Path, tmp_path: Path) -> None:
    settings = {"model": {"name": str(bert)}, "learner": {"epochs": 1}, "device": "cpu"}
    home = Home.create(tmp_path / "home", settings=settings_from(settings))
    report = home.learn("a", rows(("cat", "dog"), 12), rows(("cat", "dog"), 4, 30), force=True)
    assert report.gate.abilities == ()
    assert home.check().sound
