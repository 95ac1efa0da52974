from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

from everlearn.models.pocket import batches
from everlearn.models.pocket.pretrain import pretrain


@pytest.fixture
def in_threads(monkeypatch):
    """Let what other processes do be done by threads, and note which windows are asked for."""
    asked = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, n, mp_context):
            super().__init__(n)

        def submit(self, function, tokenizer, recipe, number, progress):
            asked.append((number, progress))
            return super().submit(function, tokenizer, recipe, number, progress)

    monkeypatch.setattr(batches, "ProcessPoolExecutor", Pool)
    return asked


def test_windows_drawn_ahead_are_those_drawn_when_needed(tiny, tiny_tokenizer, in_threads):
    wanted = batches.window(tiny_tokenizer, tiny, 3, 0.5)
    with batches.opened_windows(tiny_tokenizer, tiny, 1) as windows:
        windows.ask(3, 0.5)
        windows.ask(3, 0.5)  # once is enough
        found = windows.take(3, 0.5)
    assert in_threads == [(3, 0.5)]
    assert [batch.n_tokens for batch in found] == [batch.n_tokens for batch in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.weights, other.weights)


def test_stopping_and_going_on_changes_nothing_where_windows_are_drawn_ahead(tmp_path, tiny_file, in_threads):
    recipe = tiny_file(total_tokens=20_000)
    straight = pretrain(recipe, tmp_path / "straight", max_steps=16, quiet=True, processes=1)
    first = list(in_threads)
    pretrain(recipe, tmp_path / "halved", max_steps=7, quiet=True, processes=1)
    halved = pretrain(recipe, tmp_path / "halved", max_steps=16, quiet=True, processes=1)
    assert dict(in_threads[len(first) :]) == dict(first)  # the same windows with the same levels, whenever asked for
    assert len({progress for _, progress in first}) > 1
    one, other = (load_file(folder / "model.safetensors") for folder in (straight, halved))
    assert all(torch.equal(one[name], other[name]) for name in one)
