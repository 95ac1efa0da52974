"""Experts that are alike become one, where validation rows allow it; what goes can be had back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from everlearn.cli import app
from everlearn.errors import ConfigError
from everlearn.experts import Learned, Library
from everlearn.experts.lora import Lora
from everlearn.experts.merging import merged
from everlearn.experts.tidying import (
    HOW,
    Finding,
    Pair,
    TidyConfig,
    carry_out,
    cosine,
    findings,
    near_pairs,
    tidy_by_rows,
)
from everlearn.models.load import Model, ModelConfig, load_model
from everlearn.types import Task
from support.experts import make_lora

BLOCKS = {"text": 4, "gradient": 2, "context": 9}


def rows(letter: str) -> list[dict[str, str]]:
    return [{"prompt": f"{letter * (1 + n % 3)}{n}=", "completion": f"{n % 4} {letter}"} for n in range(12)]


def task(letter: str) -> Task:
    return Task(f"says {letter}", "prompt", rows(letter)[:8], rows(letter)[8:], metrics=("token_log_likelihood",))


@pytest.fixture
def model(llama: Path) -> Model:
    return load_model(ModelConfig(str(llama)), [task("a")])


@pytest.fixture
def library(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Four experts: 1 is nearly what 0 is, 2 has the profile of 0 but other weights, 3 lies elsewhere."""
    monkeypatch.setattr("os.fsync", lambda handle: None)
    library = Library.create(tmp_path / "library", model, rank=4)
    library.profile_with({"blocks": BLOCKS})
    near, far = torch.randn(2, 15, generator=torch.Generator().manual_seed(0))
    like = make_lora(library.base, 0)
    changed = Lora(like.config, {name: 1.0001 * tensor for name, tensor in like.tensors.items()})
    loras = [like, changed, make_lora(library.base, 5), make_lora(library.base, 6)]
    for letter, lora, vector in zip("abcd", loras, (near, near + 0.01, near + 0.02, far), strict=True):
        library.add(lora, f"says {letter}", learned=[Learned(task=f"says {letter}", prototype=vector)])
    return library


def test_the_cosine_is_that_of_the_whole_matrices(library):
    def added(lora: Lora) -> torch.Tensor:
        layers = (lora.layer(name) for name in lora.layers)
        return torch.cat([(one.scaling * one.up @ one.down).flatten() for one in layers])

    one, other = library.lora(0), make_lora(library.base, 3, rank=4)
    wanted = torch.nn.functional.cosine_similarity(added(one), added(other), dim=0)
    assert cosine(one, other) == pytest.approx(float(wanted), abs=1e-6)
    assert cosine(one, library.lora(1)) == pytest.approx(1.0)
    nothing = Lora(one.config, {name: 0 * tensor for name, tensor in one.tensors.items()})
    assert cosine(one, nothing) == 0.0


def test_pairs_are_near_in_profile_and_weights(library):
    def pairs(**options: float) -> set[tuple[int, int]]:
        return {pair.experts for pair in near_pairs(library, [0, 1, 2, 3], TidyConfig(**options))}

    assert pairs(deltas_above=-1.0) == {(0, 1), (0, 2), (1, 2)}
    assert pairs(deltas_above=0.9) == {(0, 1)}
    assert len(pairs(merge_above=-1.0, deltas_above=-1.0)) == 4  # the nearest of six
    assert near_pairs(library, [0, 3], TidyConfig()) == []


def test_an_expert_that_another_covers_is_retired_and_its_tasks_are_the_others(library, model):
    tasks, config = [task(letter) for letter in "abcd"], TidyConfig(deltas_above=-1.0)
    before, lora = library.snapshot(), library.lora(1).tensors
    looked = tidy_by_rows(library, model, tasks, config, dry_run=True)
    assert library.snapshot() == before
    found = tidy_by_rows(library, model, tasks, config)
    assert found == looked
    assert (found[0].pair.experts, found[0].kept, found[0].good) == ((0, 1), 0, True)
    assert [check.task for check in found[0].checks] == ["says b"]
    assert [expert.number for expert in library.experts] == [0, 2, 3]
    assert library.expert(0).tasks == ("says a", "says b")
    assert library.expert(1).reason == "expert 0 answers as well"
    prototypes = library.profile(0)
    assert torch.equal(prototypes["says b"], library.profile(1)["says b"])
    (event,) = [event for event in library.events() if event["event"] == "tidied"]
    assert (event["answers"], event["kept"], event["good"]) == (0, 0, True)
    library.reinstate(1)
    assert all(torch.equal(tensor, lora[name]) for name, tensor in library.lora(1).tensors.items())
    with pytest.raises(ConfigError, match="expert 1: isn't retired"):
        library.reinstate(1)


@pytest.mark.parametrize(
    ("does_for_the_other", "kept", "good"),
    [({0}, 0, True), ({2}, 2, True), ({"merged"}, None, True), (set(), None, False)],
)
def test_one_for_both_is_no_worse_than_either_on_all_tasks_of_both(library, does_for_the_other, kept, good):
    own, asked = {"says a": 0, "says c": 2}, []

    def ask(task: Task, by: Lora | int) -> list[float]:
        number = by if isinstance(by, int) else "merged"
        asked.append((task.name, number))
        fine = number in {own[task.name], *does_for_the_other}
        return [0.9 if fine else 0.8, 0.9, 0.9, 0.5 if fine else 0.4]

    before = library.snapshot()
    (found,) = findings(library, {0: [task("a")], 2: [task("c")]}, ask, TidyConfig(deltas_above=-1.0))
    assert (found.pair.experts, found.kept, found.good) == ((0, 2), kept, good)
    assert asked[:2] == [("says a", 0), ("says c", 2)]
    assert {check.task for check in found.checks} == (
        {"says a", "says c"} if kept is None else {f"says {'ca'[kept // 2]}"}
    )
    assert library.snapshot() == before
    assert good or "expert 0 merged with 2 isn't known to do as well: at worst -0.050" in found.sentence()


def test_merged_they_answer_with_what_was_checked(library):
    loras = [library.lora(number) for number in (0, 2)]
    pair = Pair((0, 2), 0.9, 0.5)
    number = carry_out(library, Finding(pair, None, (), True), {})
    assert (number, [expert.number for expert in library.experts]) == (4, [1, 3, 4])
    made = library.expert(4)
    assert (made.parents, made.tasks, made.description) == ((0, 2), ("says a", "says c"), "says a; says c")
    wanted = merged(loras, HOW, library.base).tensors
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in library.lora(4).tensors.items())


def test_rows_of_a_task_that_no_expert_learned_are_named(library, model):
    with pytest.raises(
        ConfigError, match=r"no expert in use learned this. Got \['says z'\]. Name files as the tasks: says a"
    ):
        tidy_by_rows(library, model, [task("z")], TidyConfig())


def test_few_rows_are_not_enough_where_answers_are_right_or_wrong(library, model):
    tasks = [replace(task(letter), metrics=("exact_match",)) for letter in "ab"]
    (found,) = tidy_by_rows(library, model, tasks, TidyConfig())
    assert not found.good
    assert all(check.difference == 0.0 and check.low < -0.05 for check in found.checks)


def test_by_the_command_line(library, tmp_path):
    for letter in "ab":
        lines = "".join(json.dumps(row) + "\n" for row in rows(letter))
        (tmp_path / f"says {letter}.jsonl").write_text(lines, encoding="utf-8")
    files = [word for letter in "ab" for word in ("--rows", str(tmp_path / f"says {letter}.jsonl"))]
    words = ["experts", "tidy", str(library.path), *files, "--margin", "0.3"]
    told = CliRunner().invoke(app, [*words, "--dry-run"], catch_exceptions=False).output
    assert "expert 0 for 1 does as well: at worst +0.000" in told
    assert "1 pairs were near, 1 would be replaced; 4 experts in use." in told
    assert "1 replaced; 3 experts in use." in CliRunner().invoke(app, words, catch_exceptions=False).output
    told = CliRunner().invoke(app, ["experts", "restore", str(library.path), "1"], catch_exceptions=False).output
    assert "Expert 1 is in use again; 4 are." in told
    (tmp_path / "home.json").write_text("{}", encoding="utf-8")
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1


@pytest.mark.parametrize("options", [{"every": -1}, {"merge_above": 2}, {"margin": 0}, {"confidence": 1}, {"most": 0}])
def test_bad_options_are_named(options):
    (name,) = options
    with pytest.raises(ConfigError, match=f"tidy: {name}"):
        TidyConfig(**options)
