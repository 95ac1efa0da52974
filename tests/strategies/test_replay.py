import datetime
from dataclasses import replace

import pytest
import torch

from everlearn.errors import ConfigError, StateError
from everlearn.memory.rows import row_bytes, rows_of, size
from everlearn.memory.scores import row_losses
from everlearn.state import checkpoints, load_state, named_files
from everlearn.strategies import replay
from everlearn.strategies.replay import SELECTIONS, Replay
from everlearn.types import Mixture, TensorRows
from support.runs import StopAfter, Stopped, assert_same, make_bench, weights
from support.tasks import regression_task, text_task

RANKING = [name for name in SELECTIONS if name != "reservoir"]


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert)


@pytest.fixture
def classify(llama, bert):
    return make_bench("classify", llama, bert)


def kept_rows(run):
    return {name: rows_of(stored, run.memory) for name, stored in run.strategies[0].memory_.items()}


def counts(run):
    return {name: len(rows) for name, rows in kept_rows(run).items()}


def texts(rows):
    return [row["text"] for row in rows]


def test_the_memory_is_bounded_over_all_tasks(plain):
    run = plain.learn(plain.run([{"name": "replay", "capacity": 10}], epochs=1))
    assert size(run.strategies[0].memory_) == 10
    assert set(run.strategies[0].memory_) == {"tensor_0", "tensor_1"}
    assert run.strategies[0].n_seen_ == 48


def test_a_fraction_keeps_a_share_of_each_task(plain):
    run = plain.learn(plain.run([{"name": "replay", "fraction": 0.25}], epochs=1))
    assert counts(run) == {"tensor_0": 6, "tensor_1": 6}
    tiny = replace(plain, tasks=(plain.tasks[0],))
    assert size(tiny.learn(tiny.run([{"name": "replay", "fraction": 0.001}])).strategies[0].memory_) == 1


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("kind", ["classify", "causal_lora", "plain"])
def test_every_selection_works_with_every_budget(selection, kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    for budget, most in ({"capacity": 7}, 7), ({"fraction": 0.3}, 14), ({"capacity_bytes": 500}, 500):
        run = bench.learn(bench.run([{"name": "replay", "selection": selection, **budget}], epochs=1))
        kept = kept_rows(run)
        held = sum(sum(row_bytes(rows)) if most == 500 else len(rows) for rows in kept.values())
        assert 0.8 * most <= held <= most or (most == 14 and held == 2 * round(0.3 * len(bench.tasks[0].train)))
        trained = {task.name: [repr(row) for row in task.train] for task in bench.tasks}
        for name, rows in kept.items():
            found = [repr(row) for row in rows]
            assert len(set(found)) == len(found)
            assert set(found) <= set(trained[name])


@pytest.mark.parametrize("selection", RANKING)
def test_an_earlier_task_is_cut_down_to_its_share_by_rank(selection, classify):
    run = classify.run([{"name": "replay", "capacity": 10, "selection": selection}], epochs=1)
    classify.learn(run, upto=1)
    (before,) = kept_rows(run).values()
    run.position = 1
    run.learn(classify.tasks[1])
    after = kept_rows(run)
    if selection in ("ring", "balanced", "herding"):  # five classes share, two of them of the first task
        assert counts(run) == {"classify_0": 4, "classify_1": 6}
        wanted = [row for label in (0, 1) for row in [r for r in before if r["label"] == label][:2]]
        assert sorted(texts(after["classify_0"])) == sorted(texts(wanted))
        assert [row["label"] for row in after["classify_1"]].count(2) == 2
    else:
        assert counts(run) == {"classify_0": 5, "classify_1": 5}
        assert texts(after["classify_0"]) == texts(before)[:5]


def test_a_ring_keeps_the_newest_of_each_class(classify):
    run = classify.learn(classify.run([{"name": "replay", "capacity": 4, "selection": "ring"}], epochs=1), upto=1)
    assert texts(kept_rows(run)["classify_0"]) == texts(reversed(classify.tasks[0].train[-4:]))


@pytest.mark.parametrize("loss", ["highest", "lowest"])
def test_the_losses_are_those_after_the_task(loss, plain):
    options = {"capacity": 6, "selection": "loss", "loss": loss}
    run = plain.learn(plain.run([{"name": "replay", **options}]), upto=1)
    task = plain.tasks[0]
    every = row_losses(run, task, task.train, 32).sort(descending=loss == "highest").values
    torch.testing.assert_close(row_losses(run, task, kept_rows(run)[task.name], 32), every[:6])


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_task_that_comes_again_adds_to_what_is_kept(selection, classify):
    task = classify.tasks[0]
    halves = (replace(task, train=task.train[:6]), replace(task, train=task.train[4:]))
    bench = replace(classify, tasks=halves)
    run = bench.learn(bench.run([{"name": "replay", "capacity_bytes": 10**6, "selection": selection}], epochs=1))
    assert sorted(texts(kept_rows(run)[task.name])) == sorted(texts(task.train))  # rows 4 and 5 came twice
    run = bench.learn(bench.run([{"name": "replay", "fraction": 0.5, "selection": selection}], epochs=1))
    assert counts(run) == {task.name: 4}


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("lower", [{"capacity": 4}, {"fraction": 0.25}, {"capacity_bytes": 200}, {"capacity": 0}])
def test_what_a_lower_budget_leaves_is_out_of_what_there_was(selection, lower, classify, tmp_path):
    options = {"name": "replay", "selection": selection, "weigh_by_forgetting": True, "on_disk": True}
    run = classify.learn(classify.run([options], folder=tmp_path, epochs=1))
    before, losses = kept_rows(run), run.strategies[0].losses_
    later = classify.run([{**options, **lower}], folder=tmp_path)
    later.load_state(run.state())
    later.position = 2
    (strategy,) = later.strategies
    strategy.begin_task(later, classify.tasks[0])
    after = kept_rows(later)
    n = sum(map(len, after.values()))
    if "fraction" in lower:
        assert {name: len(rows) for name, rows in after.items()} == {"classify_0": 3, "classify_1": 3}
    elif "capacity" in lower:
        assert n == lower["capacity"]
    else:
        assert 100 < sum(sum(row_bytes(rows)) for rows in after.values()) <= 200
    assert after.keys() == strategy.losses_.keys()
    for name, rows in after.items():
        places = [texts(before[name]).index(text) for text in texts(rows)]
        assert torch.equal(strategy.losses_[name], losses[name][places])
        if selection not in ("reservoir", "ring", "balanced", "herding"):  # those share by class
            assert places == list(range(len(places)))
    mixture = strategy.train_data(Mixture.of(classify.tasks[0]), later)
    assert sum(len(group) for group in mixture.groups[1:]) == n


def test_regression_has_no_uncertainty(plain):
    bench = replace(plain, tasks=(regression_task(0), regression_task(1)))
    for selection in set(SELECTIONS) - {"uncertainty"}:
        bench.learn(bench.run([{"name": "replay", "selection": selection, "capacity": 5}], epochs=1))
    with pytest.raises(ConfigError, match=r"replay\.selection: real targets have no classes"):
        bench.learn(bench.run([{"name": "replay", "selection": "uncertainty"}], epochs=1))


def test_it_adds_a_group_by_ratio_from_the_second_task_on(plain):
    run = plain.run([{"name": "replay", "ratio": 0.5}], epochs=1)
    (strategy,), mixture = run.strategies, Mixture.of(plain.tasks[1])
    assert strategy.train_data(mixture, run) is mixture
    plain.learn(run, upto=1)
    group = strategy.train_data(mixture, run).groups[1]
    assert (group.ratio, len(group)) == (0.5, 24)


def test_tasks_whose_loss_rose_are_drawn_more(plain):
    third = replace(plain.tasks[0], name="third")
    bench = replace(plain, tasks=(*plain.tasks, third))
    options = {"capacity": 20, "ratio": 0.5, "weigh_by_forgetting": True}
    run = bench.learn(bench.run([{"name": "replay", **options}], epochs=1), upto=2)
    (strategy,) = run.strategies
    assert {name: len(losses) for name, losses in strategy.losses_.items()} == counts(run)
    strategy.begin_task(run, third)
    assert sum(strategy.shares_.values()) == pytest.approx(1)
    names = list(strategy.memory_)
    strategy.losses_ = {names[0]: strategy.losses_[names[0]] * 0, names[1]: strategy.losses_[names[1]] + 9}
    strategy.begin_task(run, third)
    n = counts(run)
    assert strategy.shares_[names[0]] == pytest.approx(0.5 + 0.5 * n[names[0]] / sum(n.values()))
    groups = strategy.train_data(Mixture.of(third), run).groups[1:]
    assert [len(group.parts) for group in groups] == [1, 1]
    assert sum(group.ratio for group in groups) == pytest.approx(0.5)
    run.position = 2
    run.learn(third)
    assert set(strategy.losses_) == set(strategy.memory_)


def test_the_loss_of_a_row_is_that_of_when_its_task_was_learned(plain):
    options = {"capacity": 10, "selection": "loss", "weigh_by_forgetting": True}
    run = plain.run([{"name": "replay", **options}], epochs=1)
    plain.learn(run, upto=1)
    then = run.strategies[0].losses_["tensor_0"].clone()
    assert torch.equal(then, then.sort(descending=True).values)
    run.position = 1
    run.learn(plain.tasks[1])
    assert torch.equal(run.strategies[0].losses_["tensor_0"], then[:5])


def test_replayed_rows_are_learned_again(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    trained_on = replace(bench.tasks[0], evaluation=bench.tasks[0].train)
    assert bench.learn(bench.run(["replay"], epochs=30)).score(trained_on).value > 0.8
    assert bench.learn(bench.run(epochs=30)).score(trained_on).value < 0.3


def test_steps_hold_old_rows_by_the_ratio(plain):
    sizes = []
    run = plain.run([{"name": "replay", "ratio": 0.5}], epochs=1)
    forward = run.model.objective.forward

    def counting(network, batch, past=()):
        sizes.append(len(batch["y"]))
        return forward(network, batch, past)

    run.model.objective.forward = counting
    plain.learn(run)
    assert sizes == [4] * 6 + [6] * 6


def test_rows_without_weight_change_nothing(plain):
    options = {"optimizer": "sgd", "learning_rate": 0.1}
    alone = plain.learn(plain.run(**options))
    weightless = plain.learn(plain.run([{"name": "replay", "weight": 0.0}], **options))
    assert_same(weights(alone), weights(weightless), tolerance=1e-6)


def test_equal_weights_compute_nothing(plain):
    run = plain.learn(plain.run(["replay"], epochs=1))
    assert run.strategies[0].penalty(None) is None


@pytest.mark.parametrize("weight", [0.3, 4.0])
def test_a_weight_does_not_depend_on_accumulation(weight, llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    strategies = [{"name": "replay", "weight": weight, "ratio": 0.7}]
    options = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": 1}
    once = bench.learn(bench.run(strategies, batch_size=8, **options))
    split = bench.learn(bench.run(strategies, batch_size=2, accumulation=4, **options))
    assert_same(weights(once), weights(split), tolerance=1e-6)
    plain = bench.learn(bench.run(["replay"], batch_size=8, **options))
    assert any(not torch.equal(weights(plain)[name], tensor) for name, tensor in weights(once).items())


@pytest.mark.parametrize("kind", ["plain", "causal_lora", "classify"])
@pytest.mark.parametrize("selection", ["reservoir", "uncertainty"])
def test_on_disk_it_learns_the_same_and_checkpoints_hold_names(kind, selection, llama, bert, tmp_path):
    bench = make_bench(kind, llama, bert)
    options = {"name": "replay", "capacity": 9, "selection": selection}
    in_memory = bench.learn(bench.run([options]))
    run = bench.learn(bench.run([{**options, "on_disk": True}], folder=tmp_path))
    assert_same(weights(in_memory), weights(run))
    first, second = kept_rows(in_memory), kept_rows(run)
    for name, rows in first.items():
        if isinstance(rows, TensorRows):
            assert torch.equal(rows.x, second[name].x)
        else:
            assert list(rows) == list(second[name])
    files = {path.name: path.stat().st_size for path in run.memory.iterdir()}
    tensors, values = load_state(checkpoints(tmp_path / "checkpoints")[-1])
    assert named_files(values) == {stored["__file__"] for stored in run.strategies[0].memory_.values()} <= set(files)
    assert not any("replay" in name for name in tensors)
    assert run.strategies[0].state_bytes() > sum(files[name] for name in named_files(values))


@pytest.mark.parametrize("options", [{"on_disk": True}, {"weigh_by_forgetting": True, "weight": 2.0}])
@pytest.mark.parametrize("selection", ["reservoir", "gradient"])
def test_stopped_and_resumed_it_ends_the_same(options, selection, plain, tmp_path):
    third = replace(plain.tasks[0], name="third")
    bench = replace(plain, tasks=(*plain.tasks, third))
    strategies = [{"name": "replay", "capacity": 9, "selection": selection, **options}]
    whole = bench.learn(bench.run(strategies, folder=tmp_path / "whole"))
    for moment in (13, 30):
        folder = tmp_path / str(moment)
        with pytest.raises(Stopped):
            bench.learn(bench.run(strategies, folder=folder, every_steps=3, listener=StopAfter(moment)))
        resumed = bench.learn(bench.run(strategies, folder=folder, every_steps=3))
        assert_same(weights(whole), weights(resumed))
        assert whole.strategies[0].memory_.keys() == resumed.strategies[0].memory_.keys()
        if "on_disk" in options:
            assert whole.strategies[0].memory_ == resumed.strategies[0].memory_


@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_with_a_date_are_saved_and_resumed(on_disk, classify, tmp_path):
    dated = []
    for task in classify.tasks:
        rows = [{**row, "when": datetime.date(2024, 1, 1), "share": float("nan")} for row in task.train]
        dated.append(replace(task, train=rows))
    bench, strategies = replace(classify, tasks=tuple(dated)), [{"name": "replay", "on_disk": on_disk}]
    whole = bench.learn(bench.run(strategies, folder=tmp_path / "whole", epochs=1))
    with pytest.raises(Stopped):
        bench.learn(bench.run(strategies, folder=tmp_path / "run", epochs=1, every_steps=1, listener=StopAfter(5)))
    resumed = bench.learn(bench.run(strategies, folder=tmp_path / "run", epochs=1, every_steps=1))
    assert_same(weights(whole), weights(resumed))
    assert [row["when"] for row in kept_rows(resumed)["classify_0"]] == ["2024-01-01"] * 12


def test_a_large_memory_goes_to_disk_of_itself(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "LARGE_BYTES", 32 * 30)  # 32 bytes a row
    run = plain.learn(plain.run(["replay"], folder=tmp_path, epochs=1), upto=1)
    assert "x" in run.strategies[0].memory_["tensor_0"]
    run.position = 1
    run.learn(plain.tasks[1])
    assert all("__file__" in stored for stored in run.strategies[0].memory_.values())
    run = plain.learn(plain.run([{"name": "replay", "on_disk": False}], folder=tmp_path / "other", epochs=1))
    assert all("x" in stored for stored in run.strategies[0].memory_.values())
    run = plain.learn(plain.run(["replay"], epochs=1))  # no folder
    assert all("x" in stored for stored in run.strategies[0].memory_.values())


def test_a_memory_on_disk_needs_a_folder_and_its_files(plain, tmp_path):
    with pytest.raises(ConfigError, match=r"replay\.on_disk: the run has no folder"):
        plain.learn(plain.run([{"name": "replay", "on_disk": True}]))
    run = plain.learn(plain.run([{"name": "replay", "on_disk": True}], folder=tmp_path, epochs=1), upto=1)
    for path in run.memory.iterdir():
        path.unlink()
    run.position = 1
    with pytest.raises(StateError, match="can't be read"):
        run.learn(plain.tasks[1])


def test_the_memory_goes_through_saved_rows_of_text():
    strategy, task = Replay(), text_task(0)
    run = type("Run", (), {"seed": 0, "position": 0, "memory": None})
    strategy.end_task(run, task)
    assert texts(rows_of(strategy.memory_[task.name])) == texts(task.train)


@pytest.mark.parametrize(
    ("name", "value"),
    [("capacity", -1), ("ratio", -0.1), ("fraction", 0.0), ("fraction", 1.1), ("capacity_bytes", -1), ("weight", -1)],
)
def test_values_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"replay.{name}"):
        Replay(**{name: value})


def test_one_budget_counts():
    with pytest.raises(ConfigError, match=r"replay: has more than one budget. Got \{'capacity': 10, 'fraction': 0.1\}"):
        Replay(capacity=10, fraction=0.1)
