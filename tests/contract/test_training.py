"""What a method must keep true while it takes part in learning, over every kind of model."""

import random

import pytest
import torch

from everlearn import registry
from everlearn.config import build_strategies
from everlearn.state import load_state, pack, save_state, unpack
from everlearn.strategy import why_apart
from everlearn.types import TensorRows
from support.runs import Bench, StopAfter, Stopped, answers, assert_same, make_bench, suits, weights

NAMES = registry.names("strategy")
CLASSES = {name: registry.find("strategy", name) for name in NAMES}
NEUTRAL = [name for name, cls in CLASSES.items() if cls.neutral is not None]
ISOLATING = [name for name, cls in CLASSES.items() if cls.isolates]


def row_key(row) -> str:
    return repr({name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in row.items()})


def all_rows(value) -> list[str]:
    """Return the keys of all rows that stand anywhere in a state."""
    if isinstance(value, dict) and set(value) == {"x", "y"}:
        return [row_key(row) for row in TensorRows(value["x"], value["y"])]
    if isinstance(value, dict) and set(value) == {"rows"}:
        return [row_key(row) for row in value["rows"]]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [key for child in children for key in all_rows(child)]


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_equals_plain_training_bit_for_bit(bench: Bench, name):
    plain = bench.learn(bench.run())
    neutral = bench.learn(bench.run([{"name": name, **CLASSES[name].neutral}]))
    assert_same(weights(plain), weights(neutral))


@pytest.mark.parametrize("name", NAMES)
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(name, bench: Bench, tmp_path):
    whole = bench.learn(bench.run([name]))
    choose = random.Random(f"{name}/{bench.kind}")
    n_steps = 2 * len(range(0, len(bench.tasks[0].train), 4)) * (1 if name == "joint" else 2)
    for moment in choose.sample(range(1, n_steps + 1), 2):
        folder = tmp_path / str(moment)
        with pytest.raises(Stopped):
            bench.learn(bench.run([name], folder=folder, every_steps=1, listener=StopAfter(moment)))
        assert moment == 1 or (folder / "checkpoints").exists()
        resumed = bench.learn(bench.run([name], folder=folder, every_steps=1))
        assert_same(weights(whole), weights(resumed))
        first, second = {}, {}
        assert pack(whole.state()["strategies"], first, "s") == pack(resumed.state()["strategies"], second, "s")
        assert_same(first, second)


@pytest.mark.parametrize("name", [name for name in NAMES if suits(CLASSES[name], "causal_lora")])
def test_resume_with_dropout_and_momentum(name, llama, bert, tmp_path):
    bench = make_bench("causal_lora", llama, bert, dropout=0.3)
    options = {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine", "warmup": 0.2, "group_by_length": True}
    whole = bench.learn(bench.run([name], **options))
    moment = 4 if name == "joint" else 8
    with pytest.raises(Stopped):
        bench.learn(bench.run([name], folder=tmp_path, every_steps=1, listener=StopAfter(moment), **options))
    assert_same(weights(whole), weights(bench.learn(bench.run([name], folder=tmp_path, every_steps=1, **options))))


@pytest.mark.parametrize("name", NAMES)
def test_accumulation_4x2_equals_1x8(name, bench: Bench):
    # SGD: Adam divides by a gradient's size, and makes rounding errors of 1e-8 as large as the step
    options = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": 1}
    once = bench.learn(bench.run([name], batch_size=8, **options))
    split = bench.learn(bench.run([name], batch_size=2, accumulation=4, **options))
    assert_same(weights(once), weights(split), tolerance=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_consolidating_and_scoring_leave_flags_gradients_and_rng_as_they_were(name, bench: Bench):
    run = bench.run([name], epochs=1)
    bench.learn(run, upto=1)
    run.position = 1
    run.current = bench.tasks[1].name
    run.add_labels(bench.tasks[1])
    (strategy,) = run.strategies
    strategy.adapt_model(run, bench.tasks[1])
    strategy.begin_task(run, bench.tasks[1])
    network = run.model.network.train()
    next(m for m in network.modules() if isinstance(m, torch.nn.Linear)).eval()  # one flag unlike the others
    for number, p in enumerate(run.model.adapters.trainable().values()):
        p.grad = torch.full_like(p, float(number))

    def snapshot():
        flags = [module.training for module in network.modules()]
        trainable = [p.requires_grad for p in network.parameters()]
        gradients = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
        return flags, trainable, gradients, torch.get_rng_state()

    before = snapshot()
    strategy.end_task(run, bench.tasks[1])
    strategy.before_eval(run, bench.tasks[0])
    run.score(bench.tasks[0])
    after = snapshot()
    assert before[:2] == after[:2]
    assert torch.equal(before[3], after[3])
    for one, other in zip(before[2], after[2], strict=True):
        assert one is other is None or torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_its_state_is_tensors_and_json_and_comes_back(name, bench: Bench, tmp_path):
    run = bench.learn(bench.run([name], epochs=1))
    (strategy,) = run.strategies
    tensors = {}
    values = pack(strategy.state(), tensors, "state")
    save_state(tmp_path / "state", tensors, values)
    loaded_tensors, loaded = load_state(tmp_path / "state")
    (fresh,) = build_strategies([name])
    fresh.load_state(unpack(loaded, loaded_tensors))
    again = {}
    assert pack(fresh.state(), again, "state") == values
    assert_same(tensors, again)
    assert strategy.state_bytes() == fresh.state_bytes() >= sum(t.nbytes for t in tensors.values())


@pytest.mark.parametrize("name", NAMES)
def test_memory_never_holds_an_evaluation_item(name, bench: Bench):
    run = bench.learn(bench.run([name], epochs=1))
    kept = set(all_rows(run.strategies[0].state()))
    held_out = {row_key(row) for task in bench.tasks for row in task.evaluation}
    trained_on = {row_key(row) for task in bench.tasks for row in task.train}
    assert len(held_out) == sum(len(task.evaluation) for task in bench.tasks)
    assert not kept & held_out
    assert kept <= trained_on


@pytest.mark.parametrize("name", ISOLATING)
def test_what_an_isolating_method_answers_for_earlier_tasks_stays_bit_equal(name, bench: Bench):
    run = bench.run([name], optimizer="adamw", weight_decay=0.1)
    bench.learn(run, upto=1)
    before = answers(run, bench.tasks[0])
    run.position = 1
    run.learn(bench.tasks[1])
    after = answers(run, bench.tasks[0])
    assert torch.equal(before, after)
    assert not torch.equal(answers(run, bench.tasks[1]), after)


def test_all_that_can_stand_together_do_so_in_any_order(bench: Bench):
    names = []
    for name in NAMES:
        if suits(CLASSES[name], bench.kind) and all(why_apart(CLASSES[name], CLASSES[one]) is None for one in names):
            names.append(name)
    assert len(names) > 12
    for order in (names, names[::-1]):
        run = bench.learn(bench.run(order, optimizer="sgd", epochs=1))
        assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())
        assert len(run.learned) == 2
