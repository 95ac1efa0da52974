from dataclasses import replace

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.models.load import AdapterConfig
from support.runs import (
    answers,
    assert_same,
    learn_at,
    make_bench,
    weights,
)

ADAMW = {"optimizer": "adamw", "weight_decay": 0.1}


def test_a_new_lora_column_begins_where_the_base_model_is(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.run(["pnn"])
    base = answers(run, bench.tasks[1])
    bench.learn(run, upto=1)
    assert not torch.equal(answers(run, bench.tasks[1]), base)
    run.strategies[0].adapt_model(run, bench.tasks[1])
    assert torch.equal(answers(run, bench.tasks[1]), base)


@pytest.mark.parametrize("kind", ["causal_lora", "classify", "plain"])
def test_only_the_new_column_and_the_task_s_head_learn(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(["pnn"]))
    names = set(run.model.adapters.trainable())
    own = ("columns.1.", "laterals.0.") if kind == "plain" else (".columns.", "blocks.1.")
    assert names
    assert all(any(part in name for part in own) for name in names)


@pytest.mark.parametrize("lateral", [True, False])
@pytest.mark.parametrize("kind", ["causal_lora", "classify", "plain"])
def test_three_tasks_and_one_again_leave_earlier_answers_as_they_were(kind, lateral, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run([{"name": "pnn", "lateral": lateral}], **ADAMW))
    first, second = (answers(run, task) for task in bench.tasks)
    learn_at(run, bench.tasks[0], 2)
    assert torch.equal(answers(run, bench.tasks[1]), second)
    assert not torch.equal(answers(run, bench.tasks[0]), first)
    assert run.strategies[0].facts()["columns"] == 3


@pytest.mark.parametrize("kind", ["causal_lora", "plain"])
def test_lateral_connections_learn(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(["pnn"]))
    gates = [p for name, p in run.model.adapters.trainable().items() if "gates" in name or "scale" in name]
    assert gates
    assert all(torch.any(p != 0) for p in gates)


def test_lora_on_a_plain_module_gets_lora_columns(llama, bert):
    bench = make_bench("plain", llama, bert)
    bench = replace(bench, config=replace(bench.config, adapter=AdapterConfig("lora", rank=2)))
    run = bench.run(["pnn"], **ADAMW)
    bench.learn(run, upto=1)
    first = answers(run, bench.tasks[0])
    learn_at(run, bench.tasks[1], 1)
    assert torch.equal(answers(run, bench.tasks[0]), first)


def test_the_newest_column_is_active_again_after_scoring(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.learn(bench.run(["pnn"]))
    present = weights(run)
    run.score(bench.tasks[0])
    assert run.model.network.active == 1
    assert_same(present, weights(run))


def test_what_columns_weigh_is_counted_as_kept(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run(["pnn"])
    first, second = (learn_at(run, task, i) for i, task in enumerate(bench.tasks))
    n_column, n_lateral = (6 * 16 + 16) + (16 * 4 + 4), 1 + (16 * 16 + 16) + 16 * 4
    assert second.strategy_facts["pnn"] == {"columns": 2, "weights_added": n_column + n_lateral}
    assert second.strategy_bytes["pnn"] - first.strategy_bytes["pnn"] > 4 * (n_column + n_lateral)


def test_models_without_columns_are_refused(llama, bert):
    with pytest.raises(ConfigError, match="its columns are LoRAs"):
        make_bench("causal_full", llama, bert).run(["pnn"])
    for head in ("plain", "classify"):
        with pytest.raises(ConfigError, match="add classes to the head"):
            make_bench(head, llama, bert, head="shared").run(["pnn"])


@pytest.mark.parametrize("kind", ["causal_lora", "plain"])
def test_what_was_learned_before_there_were_columns_is_the_first_one(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    plain = bench.learn(bench.run(), upto=1)
    before = answers(plain, bench.tasks[0])
    run = bench.run(["pnn"])
    run.load_state(plain.state())
    learn_at(run, bench.tasks[1], 1)
    torch.testing.assert_close(answers(run, bench.tasks[0]), before)
    assert run.strategies[0].columns_ == {bench.tasks[0].name: 0, bench.tasks[1].name: 1}
