"""Hidden states are drawn anew and answered as before: by `cmt`, and by `pcgr`, which knows kinds of rows apart."""

import json
from dataclasses import replace

import pytest
import torch

from everlearn.config import build_strategies
from everlearn.errors import ConfigError
from everlearn.learners.teacher import as_teacher
from everlearn.listener import Listener
from everlearn.memory.latent.layers import answers_from
from everlearn.seeds import generator_for
from everlearn.state import pack
from everlearn.strategy import Strategy
from support.runs import assert_same, first_task_loss, learn_at, make_bench, weights
from support.tasks import classify_task, prompt_task

NAMES = ("cmt", "pcgr")
QUICK = {"epochs": 4, "slots": 2, "code_size": 8, "width": 16}


@pytest.mark.parametrize(("name", "kind"), [("cmt", "classify"), ("pcgr", "contrary_lora")])
def test_it_holds_what_was_learned(name, kind, llama, bert):
    bench = make_bench(kind, llama, bert, head="shared")
    held = {"name": name, "replay_alpha": 5.0, "feature_alpha": 1.0, "layer": 0, "epochs": 60}
    plain, ours = (first_task_loss(bench, how, epochs=4) for how in ([], [held]))
    assert ours < 0.85 * plain


class Watching(Strategy):
    """Keeps what a strategy adds to the loss, beside the same taken apart."""

    name = "watching"

    def __init__(self, inner):
        self.inner, self.seen = inner, []

    def penalty(self, step):
        found = self.inner.penalty(step)
        if found is not None:
            self.seen.append((found.item(), self.by_hand(step)))

    @torch.no_grad()
    def by_hand(self, step):
        run, inner = step.run, self.inner
        random = generator_for(run.seed, inner.name, run.position, step.task.name, step.index)
        torch.randint(1, (), generator=random)  # which task
        rows, layer = inner.generate(run, "say_0", 8, random), inner.memories_["say_0"]["layer"]
        with as_teacher(run, inner.teacher_):
            before, then = answers_from(run.model, rows, layer)
        with run.model.evaluating():
            now, features = answers_from(run.model, rows, layer)
        p, q = before.logits.softmax(-1), now.logits.softmax(-1)
        divergence = (p * (p / q).log()).sum(1).mean()
        return (0.2 * divergence + 0.1 * ((features - then) ** 2).mean()).item()


def test_the_loss_is_the_divergence_from_the_adapter_of_before_and_the_distance_of_features(llama, bert):
    bench = make_bench("contrary_lora", llama, bert)
    run = bench.run([{"name": "cmt", **QUICK}])
    run.strategies.append(Watching(run.strategies[0]))
    bench.learn(run)
    seen = run.strategies[1].seen
    assert len(seen) == 6  # of the second task's steps
    assert seen[0][0] == pytest.approx(0, abs=1e-9)  # before the first step it is the adapter of before
    assert all(found > 1e-6 for found, _ in seen[1:])
    assert [found for found, _ in seen] == pytest.approx([wanted for _, wanted in seen], rel=1e-3, abs=1e-8)


class Hearing(Listener):
    def __init__(self):
        self.told = []

    def inform(self, text):
        self.told.append(text)


def test_what_is_left_out_below_the_layer_is_measured_and_said(llama, bert):
    bench = make_bench("classify", llama, bert)
    hearing = Hearing()
    run = bench.run([{"name": "cmt", **QUICK}], listener=hearing)
    facts = learn_at(run, bench.tasks[0], 0).strategy_facts["cmt"]
    assert facts["layer"] == 1
    assert 0 <= facts["full_agreement"] <= 1
    assert any(text.startswith("cmt: LoRA below block 1 is no part of what is replayed") for text in hearing.told)
    whole = bench.run([{"name": "cmt", "layer": 0, **QUICK}], listener=hearing)
    assert "full_agreement" not in learn_at(whole, bench.tasks[0], 0).strategy_facts["cmt"]
    upper = replace(bench.config.adapter, targets=["layer.1.attention.self.query"])
    above = replace(bench, config=replace(bench.config, adapter=upper)).run([{"name": "cmt", **QUICK}])
    facts = learn_at(above, bench.tasks[0], 0).strategy_facts["cmt"]
    assert facts["layer"] == 1
    assert "full_agreement" not in facts


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_rows", [12, 24])
def test_no_row_is_kept_and_a_task_costs_the_same_however_many_it_had(name, n_rows, llama, bert):
    bench = make_bench("classify", llama, bert)
    task = classify_task(0, n_train=n_rows)
    run = bench.run([{"name": name, "components": 2, **QUICK}], epochs=1)
    facts = learn_at(run, task, 0).strategy_facts[name]
    state = run.strategies[0].state()
    memory = state["memories_"][task.name]
    n_components = {"cmt": 2, "pcgr": 2 if n_rows == 12 else 4}[name]  # of two classes, one for four rows
    kept = 4 * n_components * (2 * (2 * 8 + 2) + 1)
    kept += (8 * n_components + 2 * 4 * 32) if name == "pcgr" else 0
    assert facts["mixture_bytes"] == sum(tensor.nbytes for tensor in memory["mixture"].values()) == kept
    assert facts["decoder_bytes"] == sum(tensor.nbytes for tensor in memory["decoder"].values()) < 30_000
    text = json.dumps(pack(state, {}, "state"))
    assert not any(row["text"] in text for row in task.train)
    assert set(state) == {"memories_", "teacher_", "told_"}
    assert state["teacher_"] == {}


def test_classes_have_prototypes_that_lie_apart(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.run([{"name": "pcgr", **QUICK}], epochs=1)
    learn_at(run, bench.tasks[1], 0)  # of three classes
    mixture = run.strategies[0].memories_[bench.tasks[1].name]["mixture"]
    assert mixture["prototypes"].shape == (3, 32)
    assert torch.pdist(mixture["prototypes"]).min() > 1e-3
    assert sorted(mixture["kinds"].unique().tolist()) == [0, 1, 2]
    drawn = run.strategies[0].generate(run, bench.tasks[1].name, 5, torch.Generator().manual_seed(0))
    assert drawn.states.shape[::2] == (5, 32)
    assert drawn.targets.sum(1).tolist() == [1] * 5


def test_answers_that_many_rows_share_have_a_prototype_and_others_share_one(llama, bert):
    bench = make_bench("contrary_lora", llama, bert)
    run = bench.run([{"name": "pcgr", **QUICK}], epochs=1)
    learn_at(run, bench.tasks[0], 0)  # says one of two letters
    assert len(run.strategies[0].memories_["say_0"]["mixture"]["prototypes"]) == 2
    learn_at(run, prompt_task(5), 1)  # says another number to each
    assert len(run.strategies[0].memories_["add_5"]["mixture"]["prototypes"]) == 1


def test_over_20_tasks_each_is_drawn_as_it_was_when_it_was_learned(llama, bert):
    bench = make_bench("classify", llama, bert)
    tasks = [classify_task(number) for number in range(20)]
    run = bench.run([{"name": "cmt", **QUICK, "epochs": 2}], epochs=1, batch_size=12)
    (strategy,), first, sizes = run.strategies, {}, []

    def drawn(task):
        return strategy.generate(run, task.name, 4, torch.Generator().manual_seed(0))

    for position, task in enumerate(tasks):
        sizes.append(sum(learn_at(run, task, position).strategy_bytes.values()))
        first[task.name] = drawn(task)
    for task in tasks:
        now = drawn(task)
        assert torch.equal(now.states, first[task.name].states)
        assert torch.equal(now.heads, torch.full((4,), run.model.adapters.task_blocks[task.name]))
    assert sizes[19] == pytest.approx(10 * sizes[1], rel=0.1)  # as much for each


def test_what_has_no_target_within_reach_is_said_and_replayed_by_no_one(llama, bert):
    bench = make_bench("tag", llama, bert)
    blank = replace(bench.tasks[0], train=[{**row, "tags": [-100] * len(row["tags"])} for row in bench.tasks[0].train])
    run = bench.run([{"name": "cmt", **QUICK}])
    run.tasks[blank.name] = blank
    (strategy,) = run.strategies
    run.current = blank.name
    run.add_labels(blank)
    with pytest.warns(UserWarning, match=r"cmt: no row of tag_0 has a target to be replayed"):
        strategy.end_task(run, blank)
    assert strategy.state()["memories_"] == {}


@pytest.mark.parametrize("kind", ["tag", "classify"])
def test_long_rows_are_cut(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.run([{"name": "cmt", **QUICK, "max_tokens": 4, "max_rows": 5}], epochs=1)
    learn_at(run, bench.tasks[0], 0)
    rows = run.strategies[0].generate(run, bench.tasks[0].name, 6, torch.Generator().manual_seed(0))
    assert rows.lengths.max() <= 4
    assert rows.targets.any(1).all()


def test_settings_that_do_not_fit_are_refused(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    with pytest.raises(ConfigError, match=r"cmt\.layer: the model has 2 blocks\. Got 2\. Blocks are 0 to 1"):
        learn_at(bench.run([{"name": "cmt", "layer": 2}]), bench.tasks[0], 0)
    for name in NAMES:
        with pytest.raises(ConfigError, match="nothing left to replay"):
            build_strategies([name, "joint"])


def test_settings_may_change_from_task_to_task(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.run([{"name": "cmt", **QUICK}], epochs=1)
    learn_at(run, bench.tasks[0], 0)
    other = bench.run([{"name": "cmt", **QUICK, "slots": 3, "layer": 0}], epochs=1)
    other.load_state(run.state())
    learn_at(other, bench.tasks[1], 1)
    memories = other.strategies[0].memories_
    assert [(memory["layer"], memory["sizes"]["n_slots"]) for memory in memories.values()] == [(1, 2), (0, 3)]
    rows = [other.strategies[0].generate(other, name, 2, torch.Generator().manual_seed(0)) for name in memories]
    assert all(one.states.isfinite().all() for one in rows)


def test_a_task_that_is_learned_again_is_not_replayed_to_itself(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    again = replace(bench, tasks=(bench.tasks[0],))
    once, held = again.run(epochs=1), again.run([{"name": "cmt", **QUICK}], epochs=1)
    for run in (once, held):
        learn_at(run, bench.tasks[0], 0)
        learn_at(run, bench.tasks[0], 1)
    assert_same(weights(once), weights(held))
    assert list(held.strategies[0].memories_) == ["add_0"]
