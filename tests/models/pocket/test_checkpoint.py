import pytest
import torch

from everlearn.errors import StateError
from everlearn.models.pocket.batches import window
from everlearn.models.pocket.checkpoint import load_run, save_run
from everlearn.models.pocket.network import build_network, build_optimizers
from everlearn.models.pocket.training import Position, train_step


@pytest.mark.parametrize("progress", [0.0, 0.5])  # AdamW's state, and Muon's
def test_a_run_comes_back_as_it_was(tmp_path, tiny, tiny_tokenizer, change, progress):
    model = build_network(tiny, tiny_tokenizer)
    optimizers = build_optimizers(tiny, model)
    position = Position(step=3, n_tokens=900, window=1, batch=2, progress=progress)
    train_step(tiny, model, optimizers, window(tiny_tokenizer, tiny, 0, 0.0)[0], position)
    save_run(tmp_path / "checkpoints", model, optimizers, tiny, position)

    other = build_network(change(tiny, seed=5), tiny_tokenizer)
    fresh = build_optimizers(tiny, other)
    assert load_run(tmp_path / "checkpoints", other, fresh, tiny) == position
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for old, new in zip(optimizers, fresh, strict=True):
        for index, state in old.state_dict()["state"].items():
            assert all(torch.equal(value, new.state_dict()["state"][index][key]) for key, value in state.items())


def test_an_empty_folder_holds_no_run(tmp_path, tiny, tiny_tokenizer):
    model = build_network(tiny, tiny_tokenizer)
    assert load_run(tmp_path, model, build_optimizers(tiny, model), tiny) is None


def test_another_recipe_is_refused_but_more_tokens_are_not(tmp_path, tiny, tiny_tokenizer, change):
    model = build_network(tiny, tiny_tokenizer)
    optimizers = build_optimizers(tiny, model)
    save_run(tmp_path, model, optimizers, tiny, Position(step=1))
    assert load_run(tmp_path, model, optimizers, change(tiny, total_tokens=7)).step == 1
    with pytest.raises(StateError, match="another recipe"):
        load_run(tmp_path, model, optimizers, change(tiny, clip_norm=2.0))
