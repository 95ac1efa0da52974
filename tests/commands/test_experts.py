"""The commands of a library, and what they say of what is wrong."""

import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from everlearn.cli import app
from everlearn.errors import ConfigError, EverlearnError, ModelError, StateError, StreamError
from everlearn.experts import Library, Lora
from everlearn.experts.base import Base
from everlearn.experts.signals import Signals
from everlearn.models.load import ModelConfig, load_model
from everlearn.streams.files import load_task
from support.experts import make_lora
from support.tasks import prompt_task


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal so wide that no cell wraps."""
    monkeypatch.setattr("everlearn.commands.experts.console", Console(width=200))


@pytest.fixture(scope="module")
def base(llama: Path) -> Base:
    return Base.of(load_model(ModelConfig(str(llama)), [prompt_task(0)]))


@pytest.fixture
def adapters(base: Base, tmp_path: Path) -> list[Path]:
    """Two adapters as peft writes them, which name their base."""
    folders = [tmp_path / name for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        make_lora(base, seed, base_model_name_or_path=base.name).write(folder)
    return folders


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["experts", *map(str, arguments)], env={"COLUMNS": "200"})


def said(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def failure(kind: type[EverlearnError], *arguments: object) -> str:
    """Return the one sentence of a command that failed; the main program prints it and exits with 1."""
    result = invoke(*arguments)
    assert isinstance(result.exception, kind), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_a_library_from_first_to_last_command(llama, adapters, tmp_path):
    folder = tmp_path / "library"
    new = ("--model", llama, "--rank", 4, "--max-loaded", 3)
    out = said("add", folder, adapters[0], "--description", "adds one", "--tag", "sums", *new)
    assert "Expert 0: rank 2 on q_proj, v_proj." in out
    assert (Library.open(folder).settings.rank, Library.open(folder).settings.max_loaded) == (4, 3)
    said("add", folder, adapters[1], "--description", "[bold]adds two", "--tag", "more")
    table = said("ls", folder)
    assert f"2 experts of {llama}" in table
    assert "[bold]adds two" in table
    out = said(
        "merge", folder, 0, 1, "--kind", "cat", "--weight", 1, "--weight", 0.5, "--description", "both", "--retire"
    )
    assert "Expert 2: rank 4, from 0, 1." in out
    assert "1 experts of" in said("ls", folder)
    table = said("ls", folder, "--all")
    assert table.count("retired") == 2
    assert "merged from 0, 1" in table
    text = said("show", folder, 0)
    for part in ("tag: sums", "state: retired: merged into 2", "from it came: 2", "Its files are sound."):
        assert part in text
    assert said("export", folder, tmp_path / "out").split() == [str(tmp_path / "out" / "000002")]
    said("export", folder, tmp_path / "single", "--expert", 1)
    assert (tmp_path / "single" / "adapter_model.safetensors").read_bytes() == (
        adapters[1] / "adapter_model.safetensors"
    ).read_bytes()
    assert "freed; 1 experts in use." in said("prune", folder, 0)
    assert "Its files were pruned." in said("show", folder, 0)
    updates = []
    for path in (tmp_path / "single", tmp_path / "out" / "000002"):
        said("add", folder, path)
        library = Library.open(folder)
        updates.append(update(library.lora(library.experts[-1].number)))
    torch.testing.assert_close(updates[1], update(make_lora(library.base, 0)) + 0.5 * updates[0])


def update(lora: Lora) -> torch.Tensor:
    """Return what a LoRA adds to the matrix of its first layer."""
    weights = lora.layer(lora.layers[0])
    return weights.scaling * weights.up @ weights.down


def test_what_is_wrong_is_one_sentence(llama, base, adapters, tmp_path):
    folder = tmp_path / "library"
    assert "library: there is none in the folder" in failure(StateError, "ls", folder)
    assert "--model MODEL" in failure(StateError, "add", folder, adapters[0])
    assert "--kind: is unknown" in failure(ConfigError, "add", folder, adapters[0], "--model", llama, "--kind", "x")
    said("add", folder, adapters[0], "--description", "adds one", "--model", llama)
    assert "there is no such expert. Got 5. Known: 0." in failure(ConfigError, "show", folder, 5)
    assert "expert: description: is empty" in failure(ConfigError, "add", folder, adapters[1])
    make_lora(base, 3).write(adapters[1])
    text = failure(ModelError, "add", folder, adapters[1], "--description", "x")
    assert "doesn't say that it belongs to" in text
    said("add", folder, adapters[1], "--description", "x", "--same-base")
    assert "Use ties_svd" in failure(ConfigError, "merge", folder, 0, 1, "--description", "x", "--kind", "ties")
    assert "needs two experts or more" in failure(ConfigError, "merge", folder, 0, "--description", "x")
    assert "is for one expert" in failure(ConfigError, "export", folder, tmp_path / "out", "--task", "t")
    path = Library.open(folder).folder(0) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    table = said("ls", folder)
    assert "damaged" in table
    assert "adapter_model.safetensors: is damaged (it should have" in table
    assert "is damaged" in failure(StateError, "show", folder, 0)
    assert "Its files are sound." in said("show", folder, 1)


def rows_file(path: Path, letters: str) -> Path:
    rows = [{"prompt": f"{'t' * (1 + n % 3)} {n}=", "completion": letters[n % 2]} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_layers_are_listed_and_proposed(llama, tmp_path):
    out = said("layers", "--model", llama)
    assert out.count("32 x 32") + out.count("x") >= 14
    assert "gradient" not in out
    assert out.splitlines()[-1].startswith("grad_sketch_layers: [model.layers.1.self_attn.q_proj, ")
    files = [rows_file(tmp_path / f"{letters}.jsonl", letters) for letters in ("ab", "cd")]
    out = said("layers", "--model", llama, "--rows", files[0], "--rows", files[1], "--k", 3)
    assert "apart: AUC" in out
    assert len(re.findall(r"│ +[01]\.\d\d +│", out)) == 14
    one = said("layers", "--model", llama, "--rows", files[0])
    assert "gradient" in one
    assert "–" in one


def test_an_adapter_is_profiled_by_its_rows(llama, adapters, tmp_path):
    folder, rows = tmp_path / "library", rows_file(tmp_path / "letters.jsonl", "ab")
    said("add", folder, adapters[0], "--description", "says letters", "--rows", rows, "--model", llama)
    library = Library.open(folder)
    assert library.expert(0).tasks == ("letters",)
    model = load_model(ModelConfig(str(llama)), [prompt_task(0)])
    signals, task = Signals(model), load_task("letters", str(rows))
    assert library.profiled_with == signals.settings
    assert torch.equal(library.profile(0)["letters"], signals.of("says letters", task, task.train))
    assert "letters" in said("show", folder, 0)
    tagged = tmp_path / "tagged.jsonl"
    lines = [json.dumps({"tokens": [f"a{n}"], "tags": ["O"]}) for n in range(9)]
    tagged.write_text("\n".join(lines), encoding="utf-8")
    rest = ("--description", "x", "--rows")
    text = failure(ConfigError, "add", folder, adapters[1], *rest, tagged)
    assert "--rows: are for another kind of model. Got 'tag'" in text
    new = tmp_path / "new"
    failure(StreamError, "add", new, adapters[1], *rest, tmp_path / "none.jsonl", "--model", llama)
    assert not new.exists()
    said("add", folder, adapters[1], *rest, rows_file(tmp_path / "more.jsonl", "cd"))
    assert Library.open(folder).prototypes().tasks == ["letters", "more"]


def test_route_tells_what_the_router_would_do(llama, adapters, tmp_path):
    folder, files = tmp_path / "library", [rows_file(tmp_path / f"{name}.jsonl", name) for name in ("ab", "cd")]
    said("add", folder, adapters[0], "--description", "says letters", "--model", llama)
    text = failure(ConfigError, "route", folder, "letters")
    assert text.startswith(f"{folder}: no expert has a profile. Got 1. everlearn experts add")
    for adapter, rows in zip(adapters, files, strict=True):
        said("add", folder, adapter, "--description", f"says {rows.stem}", "--rows", rows)
    before = Library.open(folder).snapshot()
    told = said("route", folder, "says cd", "--rows", files[1])
    row = next(line for line in told.splitlines() if "says cd" in line)
    assert re.search(r"2\s*│\s*says cd\s*│\s*cd\s*│\s*1\.00", row)
    assert "reuse. Expert 2 is nearest by 'cd', p 0.90" in told
    alone = said("route", folder, "says cd")
    assert re.search(r"2\s*│\s*says cd\s*│\s*cd\s*│\s*1\.00", alone)
    assert "By the description alone, so p is a guess; --rows FILE tells more." in alone
    assert Library.open(folder).snapshot() == before
    assert "experts route: is told of no task" in failure(ConfigError, "route", folder)
    assert "description: is empty. Got ' '" in failure(ConfigError, "route", folder, " ")


def test_what_fails_while_an_adapter_is_profiled_leaves_the_library_as_it_was(adapters, llama, tmp_path):
    folder, rows = tmp_path / "library", rows_file(tmp_path / "letters.jsonl", "ab")
    said("add", folder, adapters[0], "--description", "x", "--model", llama)
    Library.open(folder).add_prototype(0, "letters", torch.ones(5))  # made in another way
    text = failure(ConfigError, "add", folder, adapters[1], "--description", "y", "--rows", rows)
    assert "its profiles were made otherwise" in text
    assert len(Library.open(folder)) == 1
    assert len(list((folder / "experts").iterdir())) == 1
