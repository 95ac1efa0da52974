"""A home that keeps a library in place of one adapter: learned, taken back, and killed at any moment."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from everlearn.config import CheckpointConfig
from everlearn.errors import ConfigError, StateError
from everlearn.experts import Library
from everlearn.home import Gate, Home, page
from everlearn.home.comparing import find_problems
from everlearn.home.settings import settings_from
from everlearn.listener import Listener
from support.home import end_of, moments_of
from support.runs import assert_same

LEARNER = {"epochs": 1, "batch_size": 4, "learning_rate": 0.03, "early_stopping": False}


class Told(Listener):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def inform(self, text: str) -> None:
        self.sentences.append(text)


def letters(pair: str, n: int, start: int = 0) -> list[dict]:
    return [
        {"prompt": f"{pair} {'t' * (1 + i % 3)} {i}=", "completion": pair[i % 2]} for i in range(start, start + n)
    ]  # fmt: skip


def learn(home: Home, pair: str, **options: object) -> None:
    data = {"train": letters(pair, 12), "evaluate": letters(pair, 5, 20), "validation": letters(pair, 4, 30)}
    home.learn(f"says {pair}", **data, options={"metrics": ["token_log_likelihood"]}, gate=Gate(9.0), **options)


@pytest.fixture(scope="module")
def made(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of two experts, at version 2. Not to be changed."""
    path = tmp_path_factory.mktemp("homes") / "made"
    home = Home.create(path, settings=settings_from({
        "model": {"name": str(llama), "adapter": {"rank": 2}}, "learner": LEARNER, "device": "cpu",
        "strategies": [{"name": "experts", "router": {"threshold": 1.1}}], "evaluation": {"abilities": []},
    }))  # fmt: skip
    learn(home, "ab")
    learn(home, "cd")
    return path


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    shutil.copytree(made, tmp_path / "home")
    return Home.open(tmp_path / "home", Told())


def experts(home: Home) -> list[int]:
    return [expert.number for expert in Library.open(home.path / "library").experts]


def test_the_gate_watches_all_earlier_tasks_and_the_decision_is_told(home):
    learn(home, "ef")
    assert "says ef: create. Expert" in home.listener.sentences[0]
    assert home.listener.sentences[-1].startswith("says ef: expert 2 answers")
    (first, second) = home.versions()[3].gate["verdicts"]
    assert {first["change"]["task"], second["change"]["task"]} == {"says ab", "says cd"}
    assert first["change"]["difference"] == second["change"]["difference"] == 0.0
    assert home.check().sound
    assert [change.difference for change in home.diff(2, 3).changes[:2]] == [0.0, 0.0]


def test_rollback_takes_the_library_and_its_router_back(home):
    library = Library.open(home.path / "library")
    assert (experts(home), library.router()["state"]["n_decisions"]) == ([0, 1], 2)
    home.rollback(1)
    assert (experts(home), library.open(library.path).router()["state"]["n_decisions"]) == ([0], 1)
    learn(home, "ef")  # a branch of its own: number 1 is another version's
    assert experts(home) == [0, 2]
    home.rollback(2)
    assert experts(home) == [0, 1]
    assert home.check().sound
    home.rollback(0)
    assert experts(home) == []


def test_its_page_draws_the_experts_of_the_current_version(home, monkeypatch):
    drawn = []
    draw = page.plot_experts.experts_figure
    monkeypatch.setattr(page.plot_experts, "experts_figure", lambda found: (drawn.append(found), draw(found))[1])
    whole = page.html_page(home)
    assert whole.count("<img alt=") == 2
    assert "How the library grew" in whole
    assert "What was done about each task" in whole
    home.rollback(1)
    page.html_page(home)
    told = [[line["task"] for line in found["home"][0]] for found in drawn]
    assert told == [["says ab", "says cd"], ["says ab"]]
    home.rollback(0)
    assert "<img alt=" not in page.html_page(home)


def test_what_the_gate_refuses_is_no_part_of_the_library(home):
    before = Library.open(home.path / "library").snapshot()["experts"]
    home.learn("bad", letters("xy", 12), letters("xy", 5, 20), learner={"learning_rate": 1e-12}, gate=Gate(9.0))
    assert home.current == 2
    assert Library.open(home.path / "library").snapshot()["experts"] == before
    home.rollback(3, force=True)
    assert experts(home) == [0, 1, 2]


def test_a_learning_that_is_dropped_leaves_nothing_behind(home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("everlearn.home.learning._stage", None)
        with pytest.raises(TypeError):
            learn(home, "ef")
    assert experts(home) == [0, 1, 2]
    learn(home, "gh", discard_pending=True)
    assert experts(home) == [0, 1, 2]
    assert Library.open(home.path / "library").expert(2).tasks == ("says gh",)
    assert len(list((home.path / "library" / "experts").iterdir())) == 3


def test_a_damaged_expert_is_found_and_its_version_not_taken_up(home):
    (Library.open(home.path / "library").folder(1) / "adapter_model.safetensors").write_bytes(b"")
    assert "library/experts/000001/adapter_model.safetensors: is damaged" in home.check().problems[0]
    with pytest.raises(StateError, match=r"adapter_model\.safetensors: is damaged"):
        home.rollback(2)
    home.rollback(1)


def test_killed_at_any_moment_it_opens_and_goes_on_to_the_same_end(home, tmp_path):
    def more(one: Home) -> None:
        learn(one, "ef", checkpoint=CheckpointConfig(every_s=None, every_steps=2))

    disks = moments_of(home.path, lambda: more(home), tmp_path / "moments")
    wanted, library = end_of(home.path), Library.open(home.path / "library")
    assert (wanted["current"], wanted["problems"], wanted["leftovers"]) == (3, [], [])
    changing = [disk for disk in disks if (disk / "pending").exists()]
    assert len(changing) > 12
    for disk in changing[:: len(changing) // 4]:
        one = Home.open(disk)
        if one.current == 2:
            one.resume()
        assert end_of(disk) == wanted, disk
        assert find_problems(one._versions(), one._fingerprint) == []
        assert experts(one) == experts(home)
        assert Library.open(disk / "library").problems(2) == []
        assert Library.open(disk / "library").expert(2).files == library.expert(2).files


def test_a_version_is_exported_as_the_expert_of_a_task(home, tmp_path):
    with pytest.raises(ConfigError, match="export: task: experts gives each task its own weights"):
        home.export(tmp_path / "out")
    for pair, number in (("ab", 0), ("cd", 1)):
        home.export(tmp_path / pair, task=f"says {pair}")
        exported = load_file(tmp_path / pair / "adapter_model.safetensors")
        assert_same(exported, Library.open(home.path / "library").lora(number).tensors)
    home.export(tmp_path / "whole", task="says ab", merged=True)  # its logits are compared
