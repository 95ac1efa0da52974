import dataclasses
import math
from dataclasses import dataclass, replace

import pytest
import torch

from everlearn.errors import ConfigError, Paused, TrainingError
from everlearn.learners import stopping
from everlearn.learners.devices import start_accelerator
from everlearn.learners.sft import Progress, SupervisedLearner
from everlearn.listener import Listener
from everlearn.models.load import ModelConfig
from everlearn.strategy import Strategy
from reference.training import sgd_losses
from support.half import in_half
from support.runs import StopAfter, Stopped, assert_same, make_bench, weights
from support.tasks import tensor_task


@dataclass
class Losses(Listener):
    taken: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)

    def step(self, done, loss):
        self.taken.append(loss)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert)


def test_it_takes_the_steps_of_a_loop_written_out(plain):
    losses = Losses()
    run = plain.run(listener=losses, optimizer="sgd", learning_rate=0.1, clip=0.5, epochs=1)
    begin = {name: tensor.clone() for name, tensor in weights(run).items()}
    run.learn(plain.tasks[0])
    wanted_losses, wanted = sgd_losses(begin, plain.tasks[0], run.seed, batch_size=4, learning_rate=0.1, clip=0.5)
    assert losses.taken == pytest.approx(wanted_losses, rel=1e-5)
    assert_same(weights(run), wanted, tolerance=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "adam", "weight_decay": 0.1}, {"optimizer": "sgd", "momentum": 0.9}]
)
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_optimizers_and_schedules_learn(plain, options, schedule):
    losses = Losses()
    plain.run(listener=losses, schedule=schedule, warmup=0.1, epochs=8, **options).learn(plain.tasks[0])
    assert len(losses.taken) == 8 * 6
    assert sum(losses.taken[-6:]) < 0.7 * sum(losses.taken[:6])


def test_the_learning_rate_follows_the_schedule(plain):
    rates = []

    class Watching(Strategy):
        def after_step(self, step):
            rates.append(step.learning_rate)

    plain.run([Watching()], schedule="linear", warmup=0.5, epochs=2, learning_rate=1.0, clip=1e-6).learn(plain.tasks[0])
    assert rates == pytest.approx([i / 6 for i in range(6)] + [1 - i / 6 for i in range(6)])


def test_penalties_are_added_and_hooks_come_in_order(plain):
    calls = []

    class First(Strategy):
        name = "first"

        def penalty(self, step):
            calls.append("penalty")
            return 3.0 * next(iter(step.params.values())).sum()

        def edit_grads(self, step):
            calls.append("edit_grads")
            assert step.index == len([c for c in calls if c == "edit_grads"]) - 1
            self.gradient = next(iter(step.params.values())).grad.clone()

        def after_step(self, step):
            calls.append("after_step")

    seen = First()
    run = plain.run([seen], optimizer="sgd", clip=None, epochs=1, batch_size=12, accumulation=2)
    before = next(iter(run.model.adapters.trainable().values())).detach().clone()
    run.learn(plain.tasks[0])
    assert calls == ["penalty", "penalty", "edit_grads", "after_step"]
    moved = before - next(iter(run.model.adapters.trainable().values())).detach()
    torch.testing.assert_close(moved, 0.01 * seen.gradient)
    assert seen.gradient.mean().item() == pytest.approx(3.0, abs=0.5), (
        "the penalty weighs once a step, not once a batch"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_step_batch_and_way_out(plain, bad):
    class Bad(Strategy):
        name = "bad"

        def penalty(self, step):
            return torch.tensor(bad) if step.index == 2 else None

    run = plain.run([Bad()])
    with pytest.raises(TrainingError, match=r"step 3 of 12: the loss is not finite.*batch.*'bad'.*learning_rate"):
        run.learn(plain.tasks[0])
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())


def test_a_step_names_the_rows_of_its_batch(llama, bert):
    bench = make_bench("plain", llama, bert)
    mixtures, seen = [], []

    class Watching(Strategy):
        def train_data(self, mixture, run):
            mixtures.append(mixture)
            return mixture

        def penalty(self, step):
            groups = [[row for part in group.parts for row in part.rows] for group in mixtures[-1].groups]
            wanted = torch.stack([groups[group][row]["x"] for group, row in step.rows])
            assert torch.equal(step.batch["x"], wanted)
            assert [group for group, _ in step.rows] == [0] * step.n_new + [1] * (len(wanted) - step.n_new)
            seen.append(len(wanted))

    run = bench.run(["replay", Watching()], batch_size=3, accumulation=2, epochs=1)
    for position, task in enumerate([*bench.tasks, bench.tasks[0]]):
        run.position = position
        run.learn(task)
    assert seen == [3] * 8 + [6] * 16


STOPS = {"early_stopping": True, "epochs": 30, "patience": 2, "delta": 1.1}  # no score rises by more than 1


def validated(bench):
    """Return the bench with one task that has validation rows."""
    return replace(bench, tasks=(replace(bench.tasks[0], validation=bench.tasks[0].evaluation),))


def test_it_stops_early_on_the_task_s_own_validation_and_goes_back_to_the_best_epoch(plain):
    (task,), losses = validated(plain).tasks, Losses()
    run = plain.run(listener=losses, **STOPS)
    cost = run.learn(task)
    assert len(losses.taken) == 6 * 3  # the first epoch sets the mark, two don't reach it
    assert losses.notes == [f"Task {task.name!r}: stopped after 3 of 30 epochs, went back to the weights of epoch 1."]
    assert (cost.n_epochs, cost.best_epoch) == (3, 1)
    assert cost.mean_loss == pytest.approx(sum(losses.taken) / 18)
    once = plain.run(epochs=1)
    assert once.learn(task).best_epoch is None
    assert_same(weights(run), weights(once))
    later = Losses()
    plain.run(listener=later, **{**STOPS, "min_epochs": 5}).learn(task)
    assert len(later.taken) == 6 * 5
    whole = Losses()
    plain.run(listener=whole, **{**STOPS, "epochs": 3}).learn(task)
    assert whole.notes == [f"Task {task.name!r}: after all 3 epochs, went back to the weights of epoch 1."]
    without = Losses()
    assert plain.run(listener=without, early_stopping=True, epochs=5).learn(plain.tasks[0]).best_epoch is None
    assert len(without.taken) == 6 * 5


def test_where_the_last_epoch_is_the_best_its_weights_stay(plain):
    (task,), losses = validated(plain).tasks, Losses()

    bench = replace(plain, tasks=(task,))
    run = bench.run(listener=losses, early_stopping=True, epochs=3, patience=2, delta=0.0, learning_rate=1e-4)
    values = iter([0.25, 0.5, 0.75])
    scored = run.score(task, rows="validation")
    run.score = lambda task, rows: replace(scored, value=next(values))
    cost = run.learn(task)
    assert (cost.n_epochs, cost.best_epoch, losses.notes) == (3, 3, [])
    plainly = bench.run(epochs=3, learning_rate=1e-4)
    plainly.learn(task)
    assert_same(weights(run), weights(plainly))


def test_statistics_of_a_batch_go_back_too(plain):
    bench = replace(validated(plain), config=ModelConfig("support.noisy:normed"))
    stopped, once = bench.run(listener=Losses(), **STOPS), bench.run(epochs=1)
    for run in (stopped, once):
        run.learn(bench.tasks[0])
    assert any("running_mean" in name for name in weights(once))
    assert_same(weights(stopped), weights(once))


def test_while_no_answer_is_right_epochs_are_judged_by_loss(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    task = replace(bench.tasks[0], validation=bench.tasks[0].train)
    losses = Losses()
    run = bench.run(listener=losses, early_stopping=True, epochs=5, patience=2, learning_rate=1e-4)
    cost = run.learn(task)
    assert run.score(task, rows="validation").value == 0
    assert (cost.n_epochs, cost.best_epoch) == (5, 5)  # the loss falls from epoch to epoch
    run = bench.run(listener=losses, early_stopping=True, epochs=5, patience=2, learning_rate=1e-4, delta=10.0)
    assert (run.learn(task).n_epochs, losses.notes) == (3, [
        f"Task {task.name!r}: stopped after 3 of 5 epochs, went back to the weights of epoch 1, judged by loss, for "
        "the validation score was 0."
    ])  # fmt: skip


def test_any_score_above_0_is_better_than_none_and_a_loss_that_is_not_finite_is_not():
    progress = Progress(best_score=0.0, best_loss=0.1)
    assert stopping._is_better(0.0, 0.05, progress, 0.01)
    assert not stopping._is_better(0.0, 0.095, progress, 0.01)
    assert not stopping._is_better(0.0, math.nan, progress, 0.01)
    assert stopping._is_better(0.5, None, progress, 0.01)
    assert not stopping._is_better(0.0, 0.01, Progress(best_score=0.5), 0.01)


def test_validation_leaves_the_training_flags_as_they_are(plain):
    flags = []

    class Freezing(Strategy):
        def after_step(self, step):
            modules = list(step.run.model.network.modules())
            modules[1].eval()
            flags.append([module.training for module in modules])

    (task,) = validated(plain).tasks
    plain.run([Freezing()], listener=Losses(), **STOPS).learn(task)
    assert len(flags) == 18
    assert all(one == flags[0] for one in flags)
    assert flags[0].count(False) == 1


def test_early_stopping_is_resumed(plain, tmp_path):
    bench = validated(plain)
    whole = bench.learn(bench.run(listener=Losses(), **STOPS))
    for moment in (6, 7, 12, 17):  # at the end of an epoch too, before its validation is scored
        folder = tmp_path / str(moment)
        with pytest.raises(Stopped):
            bench.learn(bench.run(folder=folder, every_steps=1, listener=StopAfter(moment), **STOPS))
        losses = Losses()
        resumed = bench.learn(bench.run(folder=folder, every_steps=1, listener=losses, **STOPS))
        assert_same(weights(whole), weights(resumed))
        assert len(losses.taken) == 18 - (moment - 1)
        assert len(losses.notes) == 1


def test_a_pause_saves_and_stops_at_the_next_step(plain, tmp_path):
    whole = plain.learn(plain.run())

    class Asking(Listener):
        def step(self, done, loss):
            run.saving.pause_requested = done == 4

    run = plain.run(folder=tmp_path, listener=Asking())
    with pytest.raises(Paused):
        plain.learn(run)
    assert_same(weights(whole), weights(plain.learn(plain.run(folder=tmp_path))))


def test_a_pause_while_rows_are_encoded_stops_before_the_task(llama, bert, tmp_path):
    bench = make_bench("causal_lora", llama, bert)
    whole = bench.learn(bench.run())

    class Asking(Listener):
        def encoding(self, task, done, n_rows):
            assert done == n_rows == len(task.train)
            run.saving.pause_requested = task is bench.tasks[1]

        def training(self, task, n_steps, done):
            assert task is bench.tasks[0]

    run = bench.run(folder=tmp_path, listener=Asking())
    with pytest.raises(Paused):
        bench.learn(run)
    assert_same(weights(whole), weights(bench.learn(bench.run(folder=tmp_path))))


BY_TOKENS = {"batch_size": 16, "batch_tokens": 60, "group_by_length": True, "epochs": 3, "schedule": "linear"}


def test_batches_by_tokens_are_planned_exactly_and_resumed_bit_for_bit(llama, bert, tmp_path):
    bench, planned = make_bench("causal_lora", llama, bert, dropout=0.3), []

    class Watching(Losses):
        def training(self, task, n_steps, done):
            planned.append(n_steps)

    losses = Watching()
    whole = bench.learn(bench.run(["replay"], listener=losses, **BY_TOKENS))
    assert sum(planned) == len(losses.taken)
    for moment in (4, planned[0] + 2):
        folder = tmp_path / str(moment)
        with pytest.raises(Stopped):
            bench.learn(bench.run(["replay"], folder=folder, every_steps=1, listener=StopAfter(moment), **BY_TOKENS))
        resumed = bench.learn(bench.run(["replay"], folder=folder, every_steps=1, **BY_TOKENS))
        assert_same(weights(whole), weights(resumed))


def test_batches_by_tokens_are_the_same_step_at_any_accumulation(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    options = {**BY_TOKENS, "optimizer": "sgd", "epochs": 1}
    once = bench.learn(bench.run(**{**options, "batch_tokens": 120}), upto=1)
    split = bench.learn(bench.run(**options, accumulation=2), upto=1)
    assert_same(weights(once), weights(split), tolerance=1e-6)


def test_rows_longer_than_the_budget_are_told(llama, bert):
    bench, losses = make_bench("causal_lora", llama, bert), Losses()
    bench.learn(bench.run(listener=losses, batch_size=16, batch_tokens=5, epochs=1), upto=1)
    n = len(bench.tasks[0].train)
    assert len(losses.taken) == n
    assert any(f"{n} of {n} rows are longer than 5 tokens" in note for note in losses.notes)


def test_batches_by_tokens_need_tokens_and_no_size(plain):
    with pytest.raises(ConfigError, match=r"learner\.batch_size: batch_tokens stands in its place. Got 8"):
        SupervisedLearner(batch_size=8, batch_tokens=512)
    with pytest.raises(ConfigError, match=r"learner\.batch_tokens: the rows of task .* are no tokens"):
        plain.run(batch_size=16, batch_tokens=512).learn(plain.tasks[0])


def test_gradient_checkpointing_changes_nothing(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    assert_same(
        weights(bench.learn(bench.run(epochs=1, gradient_checkpointing=True))),
        weights(bench.learn(bench.run(epochs=1))),
        tolerance=1e-6,
    )


def test_gradient_checkpointing_needs_a_language_model(plain):
    with pytest.raises(ConfigError, match="gradient_checkpointing: needs a language model"):
        plain.run(gradient_checkpointing=True).learn(plain.tasks[0])


def test_mixed_precision_learns(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    losses = Losses()
    run = bench.run(["lwf", "ewc", "agem", "replay"], listener=losses, precision="bf16", epochs=3)
    run.accelerator = start_accelerator(device="cpu", precision="bf16")
    bench.learn(run)
    start_accelerator(device="cpu")
    assert all(tensor.dtype == torch.float32 for name, tensor in weights(run).items() if "lora" in name)
    assert losses.taken[8] < losses.taken[0]


def test_a_step_that_overflows_in_fp16_is_no_step_for_the_strategies(plain):
    @dataclass
    class Watching(Strategy):
        name = "watching"
        steps: list = dataclasses.field(default_factory=list)

        def edit_grads(self, step):
            assert all(p.grad.isfinite().all() for p in step.params.values())

        def after_step(self, step):
            self.steps.append(step.index)

    watching = Watching()
    run = in_half(plain.run([watching, "si", {"name": "agem", "capacity": 8}], epochs=2))
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    plain.learn(run, upto=1)
    n_skipped = 12 - len(watching.steps)
    assert n_skipped > 0
    assert watching.steps == list(range(n_skipped, 12))
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())
    (si,) = (one for one in run.strategies if one.name == "si")
    assert all(tensor.isfinite().all() for tensor in si.precision_.values())
    run.position = 1
    run.learn(plain.tasks[1])
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())


def test_cost_counts_tokens_and_steps(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.run(epochs=2)
    cost = run.learn(bench.tasks[0])
    encoded = run.model.objective.encode(bench.tasks[0].train, bench.tasks[0])
    assert cost.n_steps == 2 * 3
    assert cost.n_tokens == 2 * sum(len(feature["input_ids"]) for feature in encoded)
    assert cost.train_s > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 0), ("accumulation", 0), ("learning_rate", 0), ("optimizer", "lion"), ("warmup", 2),
     ("schedule", "step"), ("clip", 0), ("precision", "fp8"), ("weight_decay", -1), ("patience", 0), ("momentum", 1.5),
     ("betas", (0.9, 1.0)), ("delta", -1), ("batch_tokens", 0), ("group_by_length", "yes")],
)  # fmt: skip
def test_options_out_of_range(name, value):
    with pytest.raises(ConfigError, match=rf"learner\.{name}"):
        SupervisedLearner(**{name: value})


def test_a_task_without_rows_takes_no_step(plain):
    task = replace(tensor_task(0), train=tensor_task(0).train[:0])
    assert plain.run(["ewc", "replay"]).learn(task).n_steps == 0
