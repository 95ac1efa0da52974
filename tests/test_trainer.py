"""The engine from Python: the README's snippets, and what bad input says."""

import json

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from everlearn import ContinualTrainer
from everlearn.errors import ConfigError, EverlearnError, ModelError, StreamError
from everlearn.listener import Listener
from everlearn.seeds import generator_for


class Counting(Listener):
    """Counts optimizer steps, planned and done."""

    planned = done = 0

    def training(self, task, n_steps, done):
        self.planned = n_steps

    def step(self, done, loss):
        self.done = done


def loaders(number: int, n: int = 80) -> tuple[DataLoader, DataLoader]:
    """Two classes of a task of its own, told by the sign of one input."""
    x = torch.randn(n, 8, generator=generator_for("trainer", number))
    y = 2 * number + (x[:, number] > 0).long()
    half = n // 2
    train, held_out = TensorDataset(x[:half], y[:half]), TensorDataset(x[half:], y[half:])
    return DataLoader(train, batch_size=8, shuffle=True), DataLoader(held_out, batch_size=8)


def test_plain_pytorch_with_the_config_spelling():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 6))
    config = {
        "optimizer": {"type": "adam", "lr": 0.01},
        "continual_strategy": {"ewc": {"enabled": True, "lambda": 100.0}, "lwf": {"enabled": False}},
    }
    trainer = ContinualTrainer(model=model, config=config)
    for task_id in range(3):
        train, held_out = loaders(task_id)
        trainer.train_task(
            train_loader=train, val_loader=held_out, task_id=task_id, task_name=f"task_{task_id}", num_epochs=10
        )
    scores = trainer.evaluate_all_tasks()
    assert list(scores) == ["task_0", "task_1", "task_2"]
    assert scores.learned["task_0"].value > 0.7
    assert [s.name for s in trainer.run.strategies] == ["ewc"]
    assert trainer.run.strategies[0].strength == 100.0
    assert trainer.run.model.network is model  # trained in place
    assert "task_2" in str(scores)
    assert "95% interval" in str(scores)


@pytest.mark.filterwarnings("ignore:Task .* nothing was learned")
def test_the_same_seed_gives_the_same_weights_whatever_the_global_generator():
    weights = []
    for noise in range(2):
        torch.manual_seed(0)
        model = nn.Linear(8, 6)
        torch.manual_seed(noise)
        trainer = ContinualTrainer(model=model, strategies=["replay"], learner={"epochs": 2})
        for task_id in range(2):
            train, held_out = loaders(task_id)
            trainer.train_task(train_loader=train, val_loader=held_out, task_id=task_id)
        weights.append(model.weight.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.filterwarnings("ignore:Task .* nothing was learned")
def test_a_language_model_on_files(llama, tmp_path):
    for name, start in (("billing", 0), ("returns", 20)):
        rows = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(start, start + 12)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows[:9])) + "\n")
        (tmp_path / f"{name}_eval.jsonl").write_text("\n".join(map(json.dumps, rows[9:])) + "\n")
    methods = ["replay", {"name": "ewc", "strength": 100}]
    trainer = ContinualTrainer(model=str(llama), strategies=methods, learner={"max_epochs": 2})
    trainer.train_task("billing", train=tmp_path / "billing.jsonl", evaluate=tmp_path / "billing_eval.jsonl")
    trainer.train_task("returns", train=tmp_path / "returns.jsonl", evaluate=tmp_path / "returns_eval.jsonl")
    scores = trainer.evaluate_all_tasks()
    assert scores["billing"].n == 3
    assert 0.0 <= scores.average() <= 1.0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"optimiser": {}}, r"config.optimiser: is unknown.*Did you mean 'optimizer'"),
        ({"optimizer": {"type": "adamm"}}, r"learner.optimizer: is unknown.*Did you mean 'adam"),
        ({"optimizer": {"lr": -1.0}}, r"learner.learning_rate: is out of range"),
        ({"continual_strategy": {"ewcc": {}}}, r"config.continual_strategy.ewcc: is no strategy.*Did you mean 'ewc'"),
        (
            {"continual_strategy": {"ewc": {"lamda": 1.0}}},
            r"config.continual_strategy.ewc.lamda: is unknown.*Did you mean 'lambda'",
        ),
    ],
)
def test_wrong_options_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        ContinualTrainer(model=nn.Linear(2, 2), config=config)


@pytest.mark.parametrize("alone", ["replay", {"name": "replay", "capacity": 7}])
def test_one_strategy_may_stand_without_a_list(alone):
    train_loader, val_loader = loaders(0)
    trainer = ContinualTrainer(nn.Linear(8, 6), alone, {"epochs": 5, "learning_rate": 0.01})
    trainer.train_task(train_loader=train_loader, val_loader=val_loader)
    (replay,) = trainer.run.strategies
    assert replay.name == "replay"
    assert replay.capacity == (None if alone == "replay" else 7)


def test_nothing_to_train_on_and_wrong_batches():
    trainer = ContinualTrainer(model=nn.Linear(8, 2))
    with pytest.raises(StreamError, match="nothing to train on"):
        trainer.train_task("empty")
    with pytest.raises(StreamError, match=r"no pair \(x, y\)"):
        trainer.train_task("wrong", train_loader=DataLoader(torch.zeros(4, 8), batch_size=2))
    train, held_out = loaders(0)
    for given in ({"train": [{"text": "a"}]}, {"evaluate": [{"text": "a"}]}, {"validation": "rows.jsonl"}):
        with pytest.raises(StreamError, match="is given both data loaders and rows"):
            trainer.train_task("both", train_loader=train, **given)
    with pytest.raises(StreamError, match="is given both data loaders and rows"):
        trainer.train_task("both", [{"text": "a"}], val_loader=held_out)
    with pytest.raises(ConfigError, match=r"learner\.epochs: has the wrong type\. Got 1\.5"):
        trainer.train_task("half", train_loader=train, num_epochs=1.5)
    with pytest.raises(ConfigError, match="no task was learned yet"):
        trainer.evaluate_all_tasks()


def test_what_is_no_model_is_named(llama):
    for given in (5, None, []):
        with pytest.raises(ConfigError, match="model: must be a mapping"):
            ContinualTrainer(given)
    assert ContinualTrainer(llama).train_task("a", sums(0, 4), sums(4, 2), num_epochs=1) is not None


def test_without_a_val_loader_there_is_no_score():
    trainer = ContinualTrainer(model=nn.Linear(8, 2), learner={"epochs": 1})
    train, _ = loaders(0)
    assert trainer.train_task(train_loader=train, task_id=0) is None


class Sentences(Dataset):
    """Sentences of 3 to 7 words, told by their first word."""

    def __init__(self, first: int = 0, longest: int = 7):
        self.first, self.longest = first, longest

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([self.first + 1 + i % 2, *range(3, self.longest + 2 - i % 5)]), self.first + i % 2


class Reader(nn.Module):
    """A mean of word vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.answer = nn.Embedding(20, 8, padding_idx=0), nn.Linear(8, 4)
        self.shapes: list[tuple[int, int]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.shapes.append(tuple(x.shape))
        return self.answer(self.words(x).mean(1))


def pad(rows: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    return pad_sequence([x for x, _ in rows], batch_first=True), torch.tensor([int(y) for _, y in rows])


def test_the_loader_s_own_batches_are_trained_on():
    seen = []

    class Net(nn.Linear):
        def forward(self, x):
            if self.training:
                seen.append(len(x))
            return super().forward(x)

    data = loaders(0, 130)[0].dataset
    trainer = ContinualTrainer(Net(8, 2), learner={"epochs": 2})
    trainer.train_task(train_loader=DataLoader(data, batch_size=16, sampler=RandomSampler(data, num_samples=24)))
    assert seen == [16, 8] * 2
    trainer.train_task(train_loader=DataLoader(data, batch_size=32, shuffle=True, drop_last=True), num_epochs=1)
    assert seen[4:] == [32, 32]  # 65 rows: a batch of one would stop a BatchNorm


def test_accumulation_takes_the_loader_s_batches_together():
    listener = Counting()
    data = loaders(0, 80)[0].dataset
    trainer = ContinualTrainer(nn.Linear(8, 2), learner={"epochs": 3, "accumulation": 2}, listener=listener)
    trainer.train_task(train_loader=DataLoader(data, batch_size=8))
    assert (listener.planned, listener.done) == (9, 9)  # 5 batches an epoch


@pytest.mark.parametrize(
    "strategy",
    ["none", "ewc", "mas", "cumulative", "lwf", "derpp", "gem", "agem", "er_ace", "gdumb", "gpm", "ogd", "replay",
     {"name": "replay", "capacity_bytes": 2000}, {"name": "replay", "selection": "gradient", "capacity": 10}],
)  # fmt: skip
def test_padded_batches_keep_their_collate_fn_beside_every_kind_of_method(strategy):
    torch.manual_seed(0)
    reader = Reader()
    trainer = ContinualTrainer(reader, [strategy], {"epochs": 20, "learning_rate": 0.03})
    for first in (0, 2):
        loader = DataLoader(Sentences(first), batch_size=4, shuffle=True, collate_fn=pad)
        held_out = DataLoader(Sentences(first), batch_size=24, collate_fn=pad)
        with pytest.warns(UserWarning, match="allow_overlap"):
            score = trainer.train_task(
                train_loader=loader, val_loader=held_out, task_id=first, options={"allow_overlap": True}
            )
        assert score.n == 24
    assert trainer.evaluate_all_tasks().learned["task_0"].value > 0.9
    assert len({length for _, length in reader.shapes}) > 1


def test_tasks_that_are_padded_differently_are_told_apart():
    trainer = ContinualTrainer(Reader(), ["replay"], {"epochs": 1})
    trainer.train_task(train_loader=DataLoader(Sentences(), batch_size=4, collate_fn=pad))
    with pytest.raises(StreamError, match=r"^batch: rows of several tasks differ in shape.*the same collate_fn"):
        trainer.train_task(train_loader=DataLoader(Sentences(2, 17), 4, collate_fn=lambda rows: pad(rows)))


WORDS = [
    {"text": " ".join(["is"] * n + ["good" if n % 2 else "bad"]), "label": ["no", "yes"][n % 2]} for n in range(12)
]


@pytest.mark.filterwarnings("ignore:Task .* nothing was learned")
def test_a_task_that_does_not_fit_is_refused_and_changes_nothing(bert):
    trainer = ContinualTrainer(str(bert), learner={"epochs": 1})
    trainer.train_task("mood", WORDS[:8], WORDS[8:])
    weights = {name: tensor.clone() for name, tensor in trainer.run.model.adapters.tensors().items()}
    louder = [{"text": row["text"] + "!", "label": row["label"] + "!"} for row in WORDS]
    wrong = [
        (
            {"train": [{"prompt": "a", "completion": "b"}], "evaluate": [{"prompt": "c", "completion": "d"}]},
            "is of kind prompt; this trainer's model was loaded for",
        ),
        ({"train_loader": loaders(0)[0]}, "is of kind tensor; this trainer's model was loaded for classify tasks"),
        ({"train": louder[:8], "evaluate": louder[8:]}, r"has labels that it had not before.*no!"),
    ]
    for data, message in wrong:
        with pytest.raises(EverlearnError, match=f"^task 'mood': {message}"):
            trainer.train_task("mood", **data)
    assert trainer.run.learned == ["mood"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.run.model.adapters.tensors().items())
    trainer.train_task("mood", train=[row for row in WORDS[:8] if row["label"] == "yes"], evaluate=WORDS[9:10])
    trainer.train_task("other", louder[:8], louder[8:])
    assert trainer.run.learned == ["mood", "mood", "other"]


def test_rows_of_text_need_a_language_model_and_tensors_a_module():
    trainer = ContinualTrainer(nn.Linear(8, 2), learner={"epochs": 1})
    with pytest.raises(ModelError, match="a plain module can't be trained on rows of text"):
        trainer.train_task("words", train=WORDS)
    trainer.train_task("numbers", train_loader=loaders(0)[0])
    with pytest.raises(ConfigError, match=r"model.name: is no plain module. Got 'pocket'"):
        ContinualTrainer("pocket").train_task("numbers", train_loader=loaders(0)[0])


def test_targets_are_made_to_fit_or_named_before_anything_is_trained():
    (x, y) = loaders(0)[0].dataset.tensors
    network = nn.Linear(8, 2)
    trainer = ContinualTrainer(network, learner={"epochs": 1})
    before = network.weight.detach().clone()
    with pytest.raises(StreamError, match=r"targets are no class of the model. Got \[2\]"):
        trainer.train_task("t", train_loader=DataLoader(TensorDataset(x, y + 1), batch_size=8))
    assert torch.equal(network.weight, before)
    weights = []
    for targets in (y, y.double()[:, None]):
        network = nn.Linear(8, 2)
        network.load_state_dict({"weight": before, "bias": torch.zeros(2)})
        data = DataLoader(TensorDataset(x, targets), batch_size=8)
        ContinualTrainer(network, learner={"epochs": 1}).train_task("t", train_loader=data)
        weights.append(network.weight)
    assert torch.equal(*weights)


def sums(start: int, n: int) -> list[dict[str, str]]:
    return [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(start, start + n)]


def test_what_is_measured_is_not_trained_on_in_either_direction(llama):
    trainer = ContinualTrainer(str(llama), learner={"epochs": 1})
    trainer.train_task("a", sums(0, 6), sums(6, 4))
    with pytest.raises(StreamError, match=r"training row 2 of 'b' and evaluation item 4 of 'a'\. Got \{'a': 1\}"):
        trainer.train_task("b", [*sums(20, 1), *sums(9, 2)], sums(30, 2))
    with pytest.raises(StreamError, match=r"evaluation items are training rows of tasks.*Got \{'a': 2\}"):
        trainer.train_task("b", sums(20, 4), [*sums(30, 2), *sums(4, 2)])
    assert list(trainer.run.tasks) == ["a"]
    with pytest.warns(
        UserWarning, match=r"'a': rows of it that are evaluation items of 'b': 2 \(allow_overlap is set\)"
    ):
        trainer.train_task("b", sums(20, 4), [*sums(30, 2), *sums(4, 2)], options={"allow_overlap": True})


@pytest.mark.filterwarnings("ignore:Task .* nothing was learned")
def test_tensors_are_kept_apart_by_their_bytes():
    train, held_out = loaders(0)
    trainer = ContinualTrainer(model=nn.Linear(8, 2), learner={"epochs": 1})
    trainer.train_task("a", train_loader=train, val_loader=held_out)
    with pytest.raises(StreamError, match=r"Got \{'a': 40\}"):
        trainer.train_task("b", train_loader=held_out)
    with pytest.warns(UserWarning, match="evaluation items of 'a': 40"):
        trainer.train_task("b", train_loader=held_out, options={"allow_overlap": True})


def test_rows_set_aside_are_told_and_validation_rows_only_where_they_are_used(llama):
    trainer = ContinualTrainer(str(llama), learner={"epochs": 1, "learning_rate": 1e-3})
    with pytest.warns(UserWarning, match="of 30 rows, .* are held out for evaluation.$"):
        trainer.train_task("a", sums(0, 30))
    assert trainer.run.tasks["a"].validation is None
    with pytest.warns(UserWarning, match=r"are held out for early stopping \(validation\)"):
        trainer.train_task("b", sums(100, 30), num_epochs=4)
    assert len(trainer.run.tasks["b"].validation) > 0


def test_an_unknown_option_and_an_unfit_metric_are_named():
    trainer = ContinualTrainer("pocket")
    with pytest.raises(ConfigError, match=r"options\.colums: is unknown.*columns"):
        trainer.train_task("a", sums(0, 6), sums(6, 4), options={"colums": {}})
    with pytest.raises(ConfigError, match="task 'a': metrics: a metric doesn't fit"):
        trainer.train_task("a", sums(0, 6), sums(6, 4), options={"metrics": ["accuracy"]})


def test_targets_that_mark_none_are_refused():
    x = torch.arange(8.0).view(4, 2)
    loader = DataLoader(TensorDataset(x, torch.tensor([0, 1, -100, 1])), batch_size=2)
    with pytest.raises(StreamError, match=r"targets are no class of the model\. Got \[-100\].*take rows"):
        ContinualTrainer(model=nn.Linear(2, 2)).train_task("a", train_loader=loader)


def test_where_nothing_was_learned_it_is_said():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 6, generator=generator), torch.randint(0, 2, (48,), generator=generator)
    trainer = ContinualTrainer(nn.Linear(6, 2), learner={"epochs": 1, "learning_rate": 1e-9})
    with pytest.warns(UserWarning, match=r"Task 'a': nothing was learned. .* after 1 epochs at learning rate 1e-09"):
        trainer.train_task("a", train_loader=[(x[:24], y[:24])], val_loader=[(x[24:], y[24:])])
