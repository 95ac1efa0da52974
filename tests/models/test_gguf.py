import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from everlearn.errors import ModelError
from everlearn.models import gguf
from everlearn.models.gguf import converted, gguf_of
from support.gguf import write_gguf


@pytest.fixture(scope="module")
def file(llama, tmp_path_factory) -> Path:
    return write_gguf(llama, tmp_path_factory.mktemp("gguf") / "tiny.gguf", tokenizer__chat_template="{{ 1 }}")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EVERLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


def test_a_converted_model_is_the_one_in_the_file(file, llama, capfd):
    folder = converted(file)
    assert capfd.readouterr().err.splitlines() == [f"Converting tiny.gguf once, into {folder.parent} ..."]
    original, ours = (AutoModelForCausalLM.from_pretrained(path) for path in (llama, folder))
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name]), name
    assert ours.config.tie_word_embeddings
    assert ours.generation_config.eos_token_id == 2
    theirs, tokenizer = (AutoTokenizer.from_pretrained(path) for path in (llama, folder))
    assert tokenizer("a  12\n")["input_ids"] == theirs("a  12\n")["input_ids"]
    assert tokenizer.special_tokens_map == theirs.special_tokens_map
    assert (tokenizer.model_max_length, tokenizer.chat_template) == (64, "{{ 1 }}")


def test_a_file_is_converted_once(file, monkeypatch):
    folder = converted(file)
    monkeypatch.setattr(gguf, "_read", None)
    assert converted(file) == folder


def test_what_is_meant_by_a_name(file, tmp_path):
    assert gguf_of("pocket") is None
    assert gguf_of(str(file)) == gguf_of(str(file.parent)) == file
    shutil.copy(file, tmp_path / "a.gguf")
    shutil.copy(file, tmp_path / "b.gguf")
    with pytest.raises(ModelError, match=r"several GGUF files. Got \['a.gguf', 'b.gguf'\]. Name one"):
        gguf_of(str(tmp_path))
    with pytest.raises(ModelError, match=r"there is no such file. Got 'c.gguf'"):
        gguf_of(str(tmp_path / "c.gguf"))
    (tmp_path / "config.json").touch()
    assert gguf_of(str(tmp_path)) is None
