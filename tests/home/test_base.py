"""The base model is pinned when a home is made, and noticed when it changes."""

import os
import shutil
from pathlib import Path

import pytest

from everlearn.errors import ConfigError, ModelError
from everlearn.home import base
from everlearn.home.base import check_unchanged, settle
from everlearn.models import origin
from everlearn.models.gguf import PACKAGED, converted
from everlearn.models.load import ModelConfig
from everlearn.models.origin import fingerprint_of
from everlearn.state import file_sha256
from support.models import byte_tokenizer


def test_folder_is_made_absolute_and_fingerprinted(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(llama.parent)
    config, fingerprint = settle(ModelConfig(llama.name))
    assert config.name == str(llama)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(fingerprint)
    check_unchanged(config, fingerprint)


def test_a_gguf_file_is_made_absolute_and_fingerprinted_by_its_own_hash(tiny_gguf, tmp_path, monkeypatch) -> None:
    copy = Path(shutil.copy(tiny_gguf, tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("tiny.gguf", "."):
        config, fingerprint = settle(ModelConfig(name))
        assert (config.name, fingerprint) == (str(copy), {"tiny.gguf": file_sha256(copy)})
    check_unchanged(config, fingerprint)
    shutil.copy(Path(converted(copy)) / "tokenizer.json", tmp_path)
    with pytest.raises(ModelError, match=r"is not the one that this home was made with\. Got \['tokenizer\.json'\]"):
        check_unchanged(config, fingerprint)


def test_a_packaged_model_keeps_its_name(tiny_gguf, tmp_path, monkeypatch) -> None:
    (tmp_path / "tiny_package").mkdir()
    (tmp_path / "tiny_package" / "__init__.py").touch()
    shutil.copy(tiny_gguf, tmp_path / "tiny_package")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PACKAGED, "tiny", ("tiny-package", "tiny_package"))
    config, fingerprint = settle(ModelConfig("tiny"))
    assert (config.name, list(fingerprint)) == ("tiny", ["tiny.gguf"])
    check_unchanged(config, fingerprint)


def test_changed_base_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(llama, folder)
    config, fingerprint = settle(ModelConfig(str(folder)))
    (folder / "notes.txt").write_text("no file that a model is loaded from")
    check_unchanged(config, fingerprint)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(ModelError, match=r"is not the one that this home was made with\. Got \['model\.safetensors'\]"):
        check_unchanged(config, fingerprint)
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match=r"if they moved, write their path into model\.name"):
        check_unchanged(config, fingerprint)


def test_hub_id_is_pinned_to_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cached(name: str, file: str, revision: str) -> str:
        asked.append((name, file, revision))
        return f"/cache/models--org--name/snapshots/abc123/{file}"

    monkeypatch.setattr(origin, "cached_file", cached)
    monkeypatch.setattr(base, "load_tokenizer", lambda config: byte_tokenizer())
    config, fingerprint = settle(ModelConfig("org/name"))
    assert (config.name, config.revision, fingerprint) == ("org/name", "abc123", {"commit": "abc123"})
    assert config.chat == "never"  # the tokenizer has no template
    assert asked == [("org/name", "config.json", "main")]
    check_unchanged(config, fingerprint)


def test_unknown_and_plain_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be found"):
        settle(ModelConfig("no-one/has-this-model"))
    with pytest.raises(ModelError, match="no model is in the folder"):
        settle(ModelConfig(str(tmp_path)))
    with pytest.raises(ConfigError, match="a home keeps language models"):
        settle(ModelConfig("mlp"))
    assert fingerprint_of(tmp_path) == {}
