"""The benchmark of signals: what its AUCs compare, and that it goes on from what it kept."""

import pytest
import signals
import torch

from everlearn.models.load import ModelConfig, load_model
from support.tasks import contrary_task, prompt_task


def looks(spread: float) -> list[signals.Look]:
    """Looks at two tasks of each of two kinds: kinds differ in text, the tasks of one in gradient."""
    generator, made = torch.Generator().manual_seed(0), []
    for kind in ("a", "b"):
        own = torch.randn(16, generator=generator)
        for task in ("one", "two"):
            direction = torch.randn(16, generator=generator)
            for _ in range(4):
                noise = spread * torch.randn(2, 16, generator=generator)
                made.append(signals.Look(task, kind, {"text": own + noise[0], "gradient 16": direction + noise[1]}))
    return made


def test_an_auc_compares_the_pairs_that_its_name_says(monkeypatch):
    monkeypatch.setattr(signals, "N_DRAWS", 20)
    made = looks(0.01)
    text, gradient = (signals.aucs(made, signals.similarities(made, (name,))) for name in ("text", "gradient 16"))
    for sort in ("task from other kinds", "kind from other kinds"):
        assert text[sort] == [1.0, 1.0, 1.0]
    assert 0.2 < text["task from others of its kind"][0] < 0.8
    assert gradient["task from others of its kind"][0] == 1.0
    value, low, high = signals.aucs(made, torch.randn(16, 16).numpy())["task from other kinds"]
    assert low < value < high


def test_looks_are_kept(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "K", 4)
    model = load_model(ModelConfig(str(llama)), [prompt_task(0)])
    task = contrary_task(0)
    found, seconds = signals.looks_at(lambda kind: model, "arena", task, tmp_path)
    assert [look.task for look in found] == ["say_0"] * 3
    assert {name: len(signal) for name, signal in found[0].signals.items()} == {
        "text": 32, "context": 9, **{f"gradient {size}": size for size in signals.SIZES},
    }  # fmt: skip
    assert not torch.equal(found[0].signals["text"], found[1].signals["text"])  # worded otherwise
    assert torch.equal(found[0].signals["text"], found[2].signals["text"])

    def none(kind: str) -> None:
        pytest.fail("it is measured again")

    again, same = signals.looks_at(none, "arena", task, tmp_path)
    assert same == seconds
    assert all(torch.equal(a.signals["context"], b.signals["context"]) for a, b in zip(found, again, strict=True))


def test_the_choices_hold_each_pair_and_all_three():
    names = [" + ".join(names) for names in signals.choices()]
    assert len(names) == len(set(names)) == 1 + 4 + 1 + 3 + 1
    assert names[-1] == "text + gradient 256 + context"
