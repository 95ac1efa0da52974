"""What a method must keep true while it takes part in learning, over every kind of model."""

import random

import pytest
import torch

from everlearn import registry
from everlearn.config import build_strategies
from everlearn.listener import Listener
from everlearn.memory.rows import row_bytes, rows_of
from everlearn.state import load_state, pack, save_state, unpack
from everlearn.strategy import overriding, why_apart
from everlearn.types import TensorRows
from everlearn.way import Run
from support.runs import Bench, StopAfter, Stopped, answers, assert_same, learn_at, make_bench, suits, weights

NAMES = registry.names("strategy")
CLASSES = {name: registry.find("strategy", name) for name in NAMES}
NEUTRAL = [name for name, cls in CLASSES.items() if cls.neutral is not None]
BOUNDS = {"capacity": (20, 5, 0), "capacity_bytes": (600, 100, 0), "fraction": (0.75, 0.25), "top_k": (50, 3)}
BOUNDED = [(n, field) for n in NAMES for field in BOUNDS if field in CLASSES[n].__dataclass_fields__]
ISOLATING = [name for name, cls in CLASSES.items() if cls.isolates]


def row_key(row) -> str:
    return repr({name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in row.items()})


def without_times(value):
    """Return JSON without the times of the day that stand in it."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key != "time"}
    return [without_times(item) for item in value] if isinstance(value, list) else value


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
    steps = StopAfter(10**9)
    whole = bench.learn(bench.run([name], folder=tmp_path / "whole", listener=steps))
    choose = random.Random(f"{name}/{bench.kind}")
    for moment in choose.sample(range(1, len(steps.taken) + 1), 2):
        folder = tmp_path / str(moment)
        with pytest.raises(Stopped):
            bench.learn(bench.run([name], folder=folder, every_steps=1, listener=StopAfter(moment)))
        assert moment == 1 or (folder / "checkpoints").exists()
        resumed = bench.learn(bench.run([name], folder=folder, every_steps=1))
        assert_same(weights(whole), weights(resumed))
        first, second = {}, {}
        states = [
            without_times(pack(run.state()["strategies"], tensors, "s"))
            for run, tensors in ((whole, first), (resumed, second))
        ]
        assert states[0] == states[1]
        assert_same(first, second)


@pytest.mark.parametrize("name", [name for name in NAMES if suits(CLASSES[name], "causal_lora")])
def test_resume_with_dropout_and_momentum(name, llama, bert, tmp_path):
    bench = make_bench("causal_lora", llama, bert, dropout=0.3)
    options = {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine", "warmup": 0.2, "group_by_length": True}
    steps = StopAfter(10**9)
    whole = bench.learn(bench.run([name], listener=steps, **options))
    moment = 2 * len(steps.taken) // 3
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


def learned_without(name: str, bench: Bench) -> Run:
    """Return a run that learned the first task with a method and the second without it."""
    run = bench.learn(bench.run([name], epochs=1), upto=1)
    without = bench.run(epochs=1)
    without.load_state(run.state())
    learn_at(without, bench.tasks[1], 1)
    return without


@pytest.mark.parametrize("bench", ["plain", "causal_lora"], indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_taken_up_again_it_does_not_undo_what_was_learned_without_it(name, bench: Bench):
    first, second = bench.tasks
    without = learned_without(name, bench)
    before = answers(without, second)
    again = bench.run([name], epochs=1)
    again.load_state(without.state())
    again.position = 2
    (strategy,) = again.strategies
    strategy.adapt_model(again, first)
    strategy.begin_task(again, first)
    torch.testing.assert_close(answers(again, second), before, rtol=1e-4, atol=1e-5)
    learn_at(again, first, 2)
    assert again.learned_without(strategy) == []


@pytest.mark.parametrize("bench", ["plain"], indirect=True)
@pytest.mark.parametrize("name", ["l2", "mas", "rwalk"])
def test_taken_up_again_it_pulls_to_what_was_learned_since(name, bench: Bench):
    without = learned_without(name, bench)
    again = bench.run([name], epochs=1)
    again.load_state(without.state())
    (strategy,) = again.strategies
    strategy.begin_task(again, bench.tasks[0])
    assert_same({n: p.detach().clone() for n, p in again.model.adapters.trainable().items()}, strategy.anchor_)


@pytest.mark.parametrize("bench", ["plain", "causal_lora"], indirect=True)
@pytest.mark.parametrize("name", [name for name in NAMES if overriding([CLASSES[name]()], "before_eval")])
def test_scoring_in_mid_task_changes_nothing(name, bench: Bench):
    run = bench.learn(bench.run([name], epochs=1))
    scored = bench.run([name], epochs=1)

    class Scoring(Listener):
        def step(self, done, loss):
            for task in bench.tasks:
                scored.score(task)
            scored.model.network.train()  # as whoever scores in mid-task does

    scored.listener = Scoring()
    for task in bench.tasks:
        scored.add_labels(task)
    assert_same(weights(run), weights(bench.learn(scored)))


def stored(state, field: str) -> float:
    """Return how much of what a bound counts stands in a method's state; `fraction`: of tasks of 24 rows."""
    if field == "top_k":
        return max((answers["columns"].shape[1] for answers in state["answers_"].values()), default=0)
    if "basis_" in state:
        return len(state["basis_"].get("lines", ()))
    rows = [rows_of(kept) for kept in state["memory_"].values()]
    if field == "fraction":
        return max((len(own) / 24 for own in rows), default=0)
    return sum(sum(row_bytes(own)) if field == "capacity_bytes" else len(own) for own in rows)


@pytest.mark.parametrize(("name", "field"), BOUNDED)
def test_a_bound_that_is_lowered_holds_from_the_next_task_on(name, field, llama, bert):
    bench = make_bench("causal_lora" if field == "top_k" else "plain", llama, bert)
    high, *lower = BOUNDS[field]
    run = bench.learn(bench.run([{"name": name, field: high}], epochs=1), upto=1)
    assert max(lower) < stored(run.strategies[0].state(), field) <= high
    for low in lower if name != "gdumb" else [value or 1 for value in lower]:
        later = bench.run([{"name": name, field: low}], epochs=1)
        later.load_state(run.state())
        later.position, later.current = 1, bench.tasks[1].name
        later.add_labels(bench.tasks[1])
        (strategy,) = later.strategies
        strategy.adapt_model(later, bench.tasks[1])
        strategy.begin_task(later, bench.tasks[1])
        assert stored(strategy.state(), field) <= low
        learn_at(later, bench.tasks[1], 1)
        assert stored(strategy.state(), field) <= low
        again = bench.run([{"name": name, field: high}], epochs=1)  # and it can be raised again
        again.load_state(later.state())
        learn_at(again, bench.tasks[1], 2)
        held = stored(again.strategies[0].state(), field)
        assert held > 0
        assert field == "fraction" or held <= high


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
