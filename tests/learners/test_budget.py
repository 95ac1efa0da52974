import dataclasses
from dataclasses import dataclass, replace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from everlearn import ContinualTrainer
from everlearn.errors import ConfigError
from everlearn.learners import budget
from everlearn.learners.budget import AUTO, fitting
from everlearn.learners.loader import BatchPlan, EncodedMixture
from everlearn.learners.sft import SupervisedLearner
from everlearn.listener import Listener
from everlearn.models.load import ModelConfig
from everlearn.seeds import generator_for
from everlearn.strategy import Strategy
from everlearn.types import Mixture, TensorRows
from support.runs import StopAfter, Stopped, assert_same, make_bench, weights
from support.tasks import regression_task, tensor_task

OPTIONS = {"epochs": AUTO, "max_epochs": 30, "batch_size": 16, "learning_rate": 0.02, "early_stopping": True}


@dataclass
class Listening(Listener):
    said: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)

    def inform(self, text):
        self.said.append(text)

    def note(self, text):
        self.notes.append(text)


@dataclass
class Watching(Strategy):
    """Writes down the epoch's rows and the rate of each step."""

    def __post_init__(self):
        self.rows, self.rates = [], []

    def after_step(self, step):
        self.rows.append([row for group, row in step.rows if group == 0])
        self.rates.append(step.learning_rate)


@pytest.fixture
def plain(llama, bert):
    """The bench of plain modules, with one task of 80 rows."""
    return replace(make_bench("plain", llama, bert), tasks=(tensor_task(0, n_train=80),))


def unpredictable(n_train):
    """Return a task whose answers can't be told from the questions, only learned by heart."""
    generator = generator_for("unpredictable")
    y = torch.randint(0, 8, (n_train + 8,), generator=generator)
    task = tensor_task(0, n_train=n_train, n_inputs=24)
    labels = tuple("abcdefgh")
    return replace(task, train=TensorRows(task.train.x, y[:n_train]), labels=labels,
                   evaluation=TensorRows(task.evaluation.x, y[n_train:]))  # fmt: skip


def share_right(run, task, rows):
    outputs = run.model.objective.forward(run.model.network, run.model.objective.encode(rows, task)[:])
    return (outputs.logits.argmax(1) == outputs.targets).float().mean().item()


@pytest.mark.parametrize(
    ("n_rows", "size", "accumulation", "wanted"),
    [
        (400, 16, 1, (16, 1)),
        (60, 16, 1, (6, 1)),  # 52 of them: 8 are held out
        (24, 16, 1, (3, 1)),
        (16, 16, 4, (2, 1)),
        (400, 16, 4, (16, 2)),  # 360 rows
        (7, 16, 1, (1, 1)),
        (60, 2, 1, (2, 1)),
    ],
)
def test_batches_shrink_with_few_rows_to_8_steps_an_epoch(plain, n_rows, size, accumulation, wanted):
    task = tensor_task(0, n_train=n_rows, labelled=False)
    encoded = EncodedMixture(Mixture.of(task), plain.run().model.objective)
    learner = SupervisedLearner(epochs=AUTO, batch_size=size, accumulation=accumulation)
    plan = BatchPlan(size, accumulation, False)
    found = fitting(plan, learner, task, encoded)
    assert (found.size, found.accumulation) == wanted
    assert fitting(plan, replace(learner, epochs=3), task, encoded) == plan


def test_rows_held_out_come_back_for_the_last_epochs_at_a_falling_rate(plain):
    watching, listening = Watching(), Listening()
    run = plain.run([watching], listener=listening, **OPTIONS)
    cost = run.learn(plain.tasks[0])
    n_last = int(listening.said[-1].partition("the last ")[2].split()[0])
    last = 8 * n_last + n_last  # 80 rows, 9 a step
    assert (cost.batch_size, cost.learning_rate) == (9, 0.02)
    seen = {row for rows in watching.rows[:-last] for row in rows}
    assert len(seen) == 72
    assert {row for rows in watching.rows[-9:] for row in rows} == set(range(80))
    assert watching.rates[:-last] == [0.02] * (len(watching.rates) - last)
    assert watching.rates[-last:] == pytest.approx([0.02 * (1 - i / last) for i in range(last)])
    assert cost.n_steps == len(watching.rates) >= budget.LEAST_STEPS
    assert run.score(plain.tasks[0]).value >= 0.75
    assert not listening.notes


def test_it_goes_on_while_the_loss_of_validation_rows_falls_and_keeps_the_best_weights(plain, monkeypatch):
    task = replace(plain.tasks[0], validation=tensor_task(0, n_train=40).evaluation)
    losses = iter([4.0, 3.0, 2.0, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0])
    looked = []

    def look(self, encoded, numbers):
        looked.append((encoded.sizes[0], weights(self.run)))
        return budget.Looked(0.5, next(losses), 0.2)

    monkeypatch.setattr(budget.AutoEpochs, "_look", look)
    run = plain.run(**OPTIONS)
    cost = run.learn(task)
    assert (cost.best_epoch, cost.n_epochs) == (3, 3 + 5)  # 40 steps without a gain, 8 an epoch
    assert {n for n, _ in looked} == {len(task.validation)}
    assert_same(weights(run), looked[3][1])


def test_where_no_epoch_is_better_than_before_the_weights_stay(plain, monkeypatch):
    looks = iter([budget.Looked(1.0, 0.1, 0.2), *[budget.Looked(0.6, 0.05, 0.2)] * 9])
    monkeypatch.setattr(budget.AutoEpochs, "_look", lambda self, encoded, numbers: next(looks))
    listening = Listening()
    run = plain.run(listener=listening, **OPTIONS)
    before = {name: tensor.clone() for name, tensor in weights(run).items()}
    run.learn(plain.tasks[0])
    assert_same(weights(run), before)
    assert listening.said[-1].endswith("none answers better than before, so the weights are those of before.")


def test_what_cant_be_told_from_other_rows_is_learned_by_heart(plain):
    task = unpredictable(120)
    run = replace(plain, tasks=(task,)).run(**{**OPTIONS, "max_epochs": 60})
    run.learn(task)
    assert share_right(run, task, task.train) > 0.95  # those that were held out too
    assert share_right(run, task, task.evaluation) < 0.6


def test_few_rows_are_judged_by_themselves_and_all_trained_on(plain):
    task, watching = tensor_task(0, n_train=20), Watching()
    bench = replace(plain, tasks=(task,))
    run = bench.run([watching], **OPTIONS)
    run.learn(task)
    assert {row for rows in watching.rows for row in rows} == set(range(20))
    assert share_right(run, task, task.train) == 1.0
    without = Watching()
    plain.run([without], **{**OPTIONS, "early_stopping": False}).learn(plain.tasks[0])
    assert {row for rows in without.rows for row in rows} == set(range(80))


def test_it_ends_in_time_and_says_so_where_the_loss_still_falls(plain):
    listening = Listening()
    cost = plain.run(listener=listening, **OPTIONS, max_minutes=1e-9).learn(plain.tasks[0])
    assert cost.n_epochs == 1
    assert cost.n_steps == 8
    assert listening.notes == [
        "Task 'tensor_0': 1e-09 minutes end before the loss stops falling. Give it more with --set "
        "learner.max_minutes=60."
    ]


def test_max_epochs_counts_the_last_ones(plain):
    listening = Listening()
    cost = plain.run(listener=listening, **{**OPTIONS, "learning_rate": 1e-3, "max_epochs": 6}).learn(plain.tasks[0])
    assert cost.n_epochs == 6
    assert listening.said[-1].endswith("over all rows; the loss was still falling (learner.max_epochs).")


@pytest.mark.parametrize("options", [{"schedule": "linear"}, {"warmup": 0.1}, {"strategies": ["packnet"]}])
def test_where_the_number_of_steps_must_be_known_it_is_a_number(plain, options):
    listening = Listening()
    learner = {**OPTIONS, **{key: value for key, value in options.items() if key != "strategies"}}
    run = plain.run(options.get("strategies", ()), listener=listening, **learner)
    assert run.learn(plain.tasks[0]).n_steps == 207  # 23 epochs of 9


def test_it_is_resumed_bit_for_bit(plain, tmp_path):
    strategies = [{"name": "replay", "capacity": 10}, {"name": "ewc", "strength": 1.0}]
    bench = replace(plain, tasks=(plain.tasks[0], tensor_task(1, n_train=48)))
    options = {**OPTIONS, "accumulation": 2, "learning_rate": AUTO, "max_epochs": 8}
    listening = StopAfter(10**6)
    whole = bench.learn(bench.run(strategies, listener=listening, **options))
    n_steps = len(listening.taken)
    for moment in (9, 11, n_steps // 2, n_steps - 3):  # 8 steps are saved, which end an epoch
        folder = tmp_path / str(moment)
        stopped = bench.run(strategies, folder=folder, every_steps=4, listener=StopAfter(moment), **options)
        with pytest.raises(Stopped):
            bench.learn(stopped)
        rest = StopAfter(10**6)
        resumed = bench.learn(bench.run(strategies, folder=folder, listener=rest, **options))
        assert_same(weights(whole), weights(resumed))
        assert n_steps - moment < len(rest.taken) <= n_steps - moment + 4


def test_language_models_and_taggers_are_learned(llama, bert):
    for kind in ("causal_lora", "tag", "classify"):
        bench = make_bench(kind, llama, bert)
        cost = bench.run(**{**OPTIONS, "max_epochs": 4}).learn(bench.tasks[0])
        assert (cost.batch_size, cost.n_epochs) in ((1, 3), (1, 4))  # 36 steps are enough where the loss is 0


def test_batches_of_a_data_loader_stay_and_its_epochs_go_on(plain):
    task = tensor_task(0, n_train=64, labelled=False)
    loader = DataLoader(TensorDataset(task.train.x, task.train.y), batch_size=20, shuffle=True)
    trainer = ContinualTrainer(torch.nn.Linear(6, 2), learner={"learning_rate": 0.1, "max_epochs": 12})
    trainer.train_task("a", train_loader=loader, val_loader=[(task.evaluation.x, task.evaluation.y)])
    assert share_right(trainer.run, trainer.run.tasks["a"], task.train) > 0.9


def test_squared_errors_are_judged_by_their_own_scale(plain):
    task = regression_task(0, n_train=60)
    small = replace(task, train=TensorRows(task.train.x, task.train.y / 100))
    for one in (task, small):
        run = replace(plain, tasks=(one,), config=ModelConfig("mlp", options={"hidden": []})).run(
            **{**OPTIONS, "learning_rate": 0.01, "max_epochs": 60, "clip": None}
        )
        run.learn(one)
        outputs = run.model.objective.forward(run.model.network, {"x": one.train.x, "y": one.train.y})
        left = (outputs.logits - one.train.y).square().mean() / one.train.y.square().mean()
        assert left < 0.05


def test_a_number_that_was_left_open_is_told(plain):
    listening = Listening()
    cost = plain.run(listener=listening, **{**OPTIONS, "learning_rate": AUTO}).learn(plain.tasks[0])
    assert listening.said[0] == "tensor_0: learning rate 0.001, 9 rows a step."
    assert cost.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": "some"}, r"^learner\.epochs: is out of range. Got 'some'"),
        ({"learning_rate": "some"}, r"^learner\.learning_rate: is out of range"),
        ({"max_minutes": 0}, r"^learner\.max_minutes: is out of range"),
        ({"max_epochs": 0}, r"^learner\.max_epochs: is out of range"),
    ],
)
def test_what_is_neither_a_number_nor_auto_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SupervisedLearner(**options)
