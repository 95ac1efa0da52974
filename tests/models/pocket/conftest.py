import dataclasses

import pytest
import torch
import yaml

from everlearn.models.pocket.recipe import PocketRecipe
from everlearn.models.pocket.tokenizer import train_tokenizer

TINY = {
    "vocabulary_size": 400,
    "tokenizer_documents": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "n_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 1,
    "max_tokens": 96,
    "batch_tokens": 400,
    "window_documents": 48,
    "total_tokens": 100_000,
}


@pytest.fixture
def tiny():
    return PocketRecipe(**TINY)


@pytest.fixture
def tiny_file(tmp_path):
    """Write a tiny recipe with changes into a file."""

    def write(**changes):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}))
        return path

    return write


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(1024, 2000)


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return train_tokenizer(TINY["vocabulary_size"], TINY["tokenizer_documents"])


@pytest.fixture
def change():
    return dataclasses.replace


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices: threads only cost, and sums must not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
