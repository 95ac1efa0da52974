"""A trainer saved and loaded goes on as if it had never stopped: bit for bit, whatever its methods keep."""

import os
import shutil
from dataclasses import dataclass

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from everlearn import ContinualTrainer
from everlearn.errors import ConfigError, ModelError, StateError, StreamError, TrainingError
from everlearn.seeds import generator_for
from everlearn.strategies.l2 import L2
from everlearn.strategy import learned
from everlearn.trainer_saving import ROWS, STATES

pytestmark = pytest.mark.filterwarnings("ignore:Task .* nothing was learned", "ignore:task .*are held out")
TENSORS = [
    "ewc", "replay", "packnet", "cumulative", "lwf", "gem", "derpp", "ema", {"name": "replay", "on_disk": True}
]  # fmt: skip
TEXTS = ["ewc", "replay", "packnet", "inclora"]


def data(number: int, n: int = 48) -> dict[str, DataLoader]:
    """Two classes of a task of its own."""
    x = torch.randn(n, 8, generator=generator_for("saving", number))
    y = 2 * number + (x[:, number] > 0).long()
    half = n // 2
    train, held_out = TensorDataset(x[:half], y[:half]), TensorDataset(x[half:], y[half:])
    return {"train_loader": DataLoader(train, batch_size=8, shuffle=True), "val_loader": DataLoader(held_out, 16)}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 6))


def sums(start: int) -> dict[str, list]:
    rows = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(start, start + 12)]
    return {"train": rows[:8], "evaluate": rows[8:]}


def moods(start: int) -> dict[str, list]:
    words = [["bad", "good"], ["dull", "bright"], ["old", "new"]][start]
    rows = [{"text": " ".join(["is"] * (n + 1) + [words[n % 2]]), "label": words[n % 2]} for n in range(12)]
    return {"train": rows[:8], "evaluate": rows[8:]}


def same(first: ContinualTrainer, second: ContinualTrainer) -> None:
    """Check that two trainers have learned, keep and measured the same, bit for bit."""
    mine, theirs = first.run.state(), second.run.state()
    _same_values(mine, theirs)
    assert first.run.notes == second.run.notes
    assert str(first.evaluate_all_tasks()) == str(second.evaluate_all_tasks())
    assert str(first.metrics()) == str(second.metrics())


def _same_values(first, second) -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
        assert first.dtype == second.dtype
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            _same_values(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            _same_values(one, other)
    else:
        assert first == second


@pytest.mark.parametrize("strategy", TENSORS, ids=str)
def test_a_module_goes_on_bit_for_bit(strategy, tmp_path):
    learner = {"epochs": 2, "learning_rate": 0.01}
    whole = ContinualTrainer(network(), [strategy], learner, folder=tmp_path / "whole")
    first = ContinualTrainer(network(), [strategy], learner, folder=tmp_path / "live")
    for number in (0, 1):
        whole.train_task(f"t{number}", **data(number))
        first.train_task(f"t{number}", **data(number))
    first.save(tmp_path / "kept")
    shutil.rmtree(tmp_path / "live", ignore_errors=True)  # what it keeps on disk was copied
    second = ContinualTrainer.load(tmp_path / "kept", model=network())
    same(first if strategy != TENSORS[-1] else whole, second)
    whole.train_task("t2", **data(2))
    second.train_task("t2", **data(2))
    same(whole, second)


@pytest.mark.parametrize(("rows", "strategy"), [*((sums, name) for name in TEXTS), (moods, "ewc"), (moods, "replay")])
def test_a_language_model_goes_on_bit_for_bit(rows, strategy, llama, bert, tmp_path):
    model = str(llama if rows is sums else bert)
    learner = {"epochs": 1, "batch_size": 4}
    whole, first = (ContinualTrainer(model, [strategy], learner, seed=3) for _ in range(2))
    for number in range(2):
        whole.train_task(f"t{number}", **rows(20 * number if rows is sums else number))
    first.train_task("t0", **rows(0))
    first.save(tmp_path)
    second = ContinualTrainer.load(tmp_path)
    same(first, second)
    second.train_task("t1", **rows(20 if rows is sums else 1))
    same(whole, second)
    second.save(tmp_path)
    same(whole, ContinualTrainer.load(tmp_path))


def pad(rows):
    return pad_sequence([x for x, _ in rows], batch_first=True), torch.tensor([int(y) for _, y in rows])


@dataclass
class Stronger(L2):
    """A method of the user's own, which isn't registered."""

    more: float = 1.0
    steps_: int = learned(int)

    def after_step(self, step):
        self.steps_ += 1


def test_a_strategy_of_the_user_s_is_found_by_its_class(tmp_path):
    trainer = ContinualTrainer(network(), [Stronger(0.5, more=2.0)], {"epochs": 1})
    trainer.train_task("a", **data(0))
    trainer.save(tmp_path)
    (strategy,) = ContinualTrainer.load(tmp_path, model=network()).run.strategies
    assert isinstance(strategy, Stronger)
    assert (strategy.strength, strategy.more, strategy.steps_) == (0.5, 2.0, 3)


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.answer = nn.Embedding(30, 8, padding_idx=0), nn.Linear(8, 4)

    def forward(self, x):
        return self.answer(self.words(x).mean(1))


def test_rows_that_differ_in_shape_need_their_collate_fn_again(tmp_path):
    def sentences(first, others):
        rows = [
            (torch.tensor([first + 1 + i % 2, *range(others, others + 3 + i % 5)]), first + i % 2) for i in range(12)
        ]
        return DataLoader(rows, 4, collate_fn=pad)

    whole, first = (ContinualTrainer(Reader(), ["replay"], {"epochs": 2}) for _ in range(2))
    for trainer in (whole, first):
        trainer.train_task("a", train_loader=sentences(0, 6), val_loader=sentences(0, 16))
    first.save(tmp_path)
    with pytest.raises(ConfigError, match=r"task 'a': only a function of yours.*collate_fn"):
        ContinualTrainer.load(tmp_path, model=Reader())
    second = ContinualTrainer.load(tmp_path, model=Reader(), collate_fn=pad)
    for trainer in (whole, second):
        trainer.train_task("b", train_loader=sentences(2, 12))
    same(whole, second)
    second.save(tmp_path)
    same(whole, ContinualTrainer.load(tmp_path, model=Reader(), collate_fn=pad))


def test_a_module_by_name_is_built_as_it_was(tmp_path):
    first = ContinualTrainer({"name": "mlp", "options": {"hidden": [6]}}, ["l2"], {"epochs": 1})
    first.train_task("a", **data(1))
    first.save(tmp_path)
    second = ContinualTrainer.load(tmp_path)
    for trainer in (first, second):
        trainer.train_task("b", **data(0))
    same(first, second)


@pytest.fixture
def saved(tmp_path):
    trainer = ContinualTrainer(network(), ["ewc"], {"epochs": 1})
    trainer.train_task("a", **data(0))
    trainer.save(tmp_path / "kept")
    return trainer, tmp_path / "kept"


def test_rows_are_kept_apart_after_loading_too(saved):
    trainer, folder = saved
    trainer = ContinualTrainer.load(folder, model=network())
    again = data(0)
    with pytest.raises(StreamError, match=r"training rows are evaluation items.*\{'a': 24\}"):
        trainer.train_task("b", train_loader=again["val_loader"])
    with pytest.raises(StreamError, match=r"evaluation items are training rows.*a training row of 'a' and evaluation"):
        trainer.train_task("b", train_loader=data(1)["train_loader"], val_loader=again["train_loader"])


def test_a_model_that_is_another_is_refused(saved, llama, tmp_path):
    folder = saved[1]
    with pytest.raises(ConfigError, match=r"the model was handed over as an object.*a Sequential like that one"):
        ContinualTrainer.load(folder)
    wider = nn.Sequential(nn.Linear(8, 14), nn.BatchNorm1d(14), nn.ReLU(), nn.Linear(14, 6))
    with pytest.raises(ModelError, match=r"^model: saved weights don't fit\. Got \['0.bias'"):
        ContinualTrainer.load(folder, model=wider)
    moved = shutil.copytree(llama, tmp_path / "llama")
    by_name = ContinualTrainer(str(moved), ["ewc"], {"epochs": 1})
    by_name.train_task("a", **sums(0))
    by_name.save(tmp_path / "named")
    moved.rename(tmp_path / "elsewhere")
    same(by_name, ContinualTrainer.load(tmp_path / "named", model=str(tmp_path / "elsewhere")))
    with pytest.raises(ConfigError, match="the model is loaded by its name"):
        ContinualTrainer.load(tmp_path / "named", model=network())
    config = tmp_path / "elsewhere" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ModelError, match=r"is not the one that the trainer was saved with\. Got \['config.json'\]"):
        ContinualTrainer.load(tmp_path / "named", model=str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("kind", ["transformers", "peft"])
def test_the_frozen_weights_of_a_language_model_must_be_those_of_before(kind, llama, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(llama)

    def handed_over(seed):
        torch.manual_seed(seed)  # of the adapter
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        model = AutoModelForCausalLM.from_pretrained(llama)
        return model if kind == "transformers" else get_peft_model(model, config)

    trainer = ContinualTrainer(handed_over(0), ["replay"], {"epochs": 1})
    trainer.train_task("a", **sums(0))
    trainer.save(tmp_path)
    second = ContinualTrainer.load(tmp_path, model=handed_over(1), tokenizer=tokenizer)
    for one in (trainer, second):
        one.train_task("b", **sums(20))
    same(trainer, second)
    other = handed_over(0)
    with torch.no_grad():
        next(p for name, p in other.named_parameters() if "lora" not in name).add_(1)
    with pytest.raises(ModelError, match="its frozen weights are not those"):
        ContinualTrainer.load(tmp_path, model=other)


def test_a_crash_leaves_what_was_saved_before(saved, monkeypatch):
    trainer, folder = saved
    trainer.train_task("b", **data(1))
    rename = os.rename

    def full(source, target):
        if STATES in str(target):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(StateError, match="No space left on device"):
        trainer.save(folder)
    monkeypatch.undo()
    assert ContinualTrainer.load(folder, model=network()).run.learned == ["a"]
    (folder / ROWS / ".1.arrow.tmp").touch()  # of a crash
    for _ in range(3):
        trainer.save(folder)
    assert len(list((folder / STATES).iterdir())) == 2
    assert len(list((folder / ROWS).iterdir())) == 2  # the items of a and b
    assert ContinualTrainer.load(folder, model=network()).run.learned == ["a", "b"]


def test_a_trainer_whose_first_task_failed_has_nothing_to_save_or_say(tmp_path):
    trainer = ContinualTrainer(
        network(), learner={"epochs": 1, "learning_rate": 1e30, "clip": None, "optimizer": "sgd"}
    )
    with pytest.raises(TrainingError, match="the loss is not finite"):
        trainer.train_task("a", **data(0))
    for ask in (
        lambda: trainer.save(tmp_path),
        trainer.metrics,
        trainer.evaluate_all_tasks,
        lambda: trainer.predict([]),
    ):
        with pytest.raises(ConfigError, match=r"no task was learned to its end yet. Got \[\]. Call train_task again"):
            ask()
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_trainer_and_a_damaged_one(saved):
    folder = saved[1]
    with pytest.raises(StateError, match="no trainer was saved there"):
        ContinualTrainer.load(folder / "nothing")
    with pytest.raises(ConfigError, match="no task was learned yet"):
        ContinualTrainer(network()).save(folder)
    (rows,) = (folder / ROWS).iterdir()
    rows.write_bytes(rows.read_bytes()[:-1] + b"x")
    with pytest.raises(StateError, match="is damaged"):
        ContinualTrainer.load(folder, model=network())
