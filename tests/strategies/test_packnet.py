from dataclasses import dataclass, field, replace

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

from everlearn.errors import ConfigError, ModelError
from everlearn.home import Gate, Home
from everlearn.home.settings import settings_from
from everlearn.learners.loader import row_batches
from everlearn.strategies.packnet import PackNet, capacity, give_largest
from everlearn.strategy import Strategy
from support.runs import answers, assert_same, learn_at, make_bench, weights
from support.tasks import prompt_task, tensor_task

KINDS = ["causal_lora", "causal_full", "classify", "plain"]
ADAMW = {"optimizer": "adamw", "weight_decay": 0.1}


def slowly(weights, owners, number, prune_fraction):
    given = owners.clone()
    free = [place for place in torch.cartesian_prod(*map(torch.arange, weights.shape)).tolist() if owners[*place] == 0]
    free.sort(key=lambda place: -abs(weights[*place].item()))
    for place in free[: len(free) - round(prune_fraction * len(free))]:
        given[*place] = number
    return given


@pytest.mark.parametrize("prune_fraction", [0.01, 0.5, 0.75, 0.999])
def test_the_largest_free_weights_are_given_away(prune_fraction):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(7, 9, generator=generator)
    owners = torch.randint(0, 3, (7, 9), generator=generator).to(torch.uint8)
    given = give_largest(matrix, owners, 3, prune_fraction)
    assert given.dtype is torch.uint8
    assert torch.equal(given, slowly(matrix, owners, 3, prune_fraction))


def test_of_equal_weights_the_share_is_exact():
    given = give_largest(torch.zeros(10, 10), torch.zeros(10, 10, dtype=torch.uint8), 1, 0.75)
    assert given.sum() == 25


def test_capacity_counts_each_weight_once():
    owners = {"a": torch.tensor([[0, 1], [2, 2]], dtype=torch.uint8), "b": torch.tensor([[3, 1]], dtype=torch.uint8)}
    found = capacity(owners, ["x", "y", "x"])
    assert found["total"] == 6
    assert found["shares"] == pytest.approx({"x": 3 / 6, "y": 2 / 6})
    assert found["free"] == pytest.approx(1 / 6)
    assert capacity({}, [])["free"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_task_keeps_its_share_of_what_was_free(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run([{"name": "packnet", "prune_fraction": 0.5}], **ADAMW))
    now = dict(run.model.network.named_parameters())
    for name, owners in run.strategies[0].owners_.items():
        counts = torch.bincount(owners.flatten(), minlength=3).tolist()
        free = round(0.5 * owners.numel())
        assert counts == [round(0.5 * free), owners.numel() - free, free - round(0.5 * free)]
        assert torch.all(now[name][owners == 0] == 0)
    facts = run.strategies[0].facts()
    assert sum(facts["shares"].values()) + facts["free"] == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shared_rest_learns_in_the_first_task_alone(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.run(["packnet"], **ADAMW)
    before = weights(run)
    bench.learn(run, upto=1)
    first = weights(run)
    learn_at(run, bench.tasks[1], 1)
    last, own = weights(run), run.strategies[0].owners_
    own_rows = ("layers.3.", "4.", "3.") if kind == "plain" else ()
    rest = [name for name in first if name not in own and "blocks.1" not in name and not name.startswith(own_rows)]
    assert all(torch.equal(first[name], last[name]) for name in rest)
    if kind == "causal_full":
        assert any("embed_tokens" in name for name in rest)
        assert any(not torch.equal(before[name], first[name]) for name in rest)
    assert any(not torch.equal(first[name], last[name]) for name in own)


@dataclass
class Watching(Strategy):
    """Keeps the weights after each step."""

    seen: list = field(default_factory=list)

    def after_step(self, step):
        self.seen.append(weights(step.run))


@pytest.mark.parametrize("kind", ["causal_lora", "plain"])
def test_the_last_steps_retrain_what_is_kept_and_nothing_else(kind, llama, bert):
    bench, watching = make_bench(kind, llama, bert), Watching()
    run = bench.run([{"name": "packnet", "retrain_share": 0.5}, watching], **ADAMW)
    bench.learn(run, upto=1)
    n_steps = len(watching.seen)
    pruned_at = n_steps - n_steps // 2 - 1
    moved = 0
    for name, owners in run.strategies[0].owners_.items():
        trace = [step[name] for step in watching.seen]
        assert all(torch.all(step[owners == 0] == 0) for step in trace[pruned_at:])
        assert torch.any(trace[pruned_at - 1][owners == 0] != 0)
        moved += (trace[pruned_at] != trace[-1]).sum()
    assert moved > 0


@pytest.mark.filterwarnings("ignore:Task .* stopped after")
def test_where_training_stops_early_it_prunes_all_the_same(llama, bert):
    bench = make_bench("plain", llama, bert)
    task = replace(bench.tasks[0], validation=bench.tasks[0].evaluation)
    run = bench.run(["packnet"], epochs=20, early_stopping=True, patience=1, delta=2.0, learning_rate=1e-6)
    cost = learn_at(run, task, 0)
    assert cost.n_steps < 20 * 6
    assert run.strategies[0].facts()["free"] == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("kind", ["causal_full", "classify", "plain"])
def test_a_task_learned_again_gets_more_weights_and_the_others_stay(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(["packnet", "replay"], **ADAMW))
    first, second = (answers(run, task) for task in bench.tasks)
    learn_at(run, bench.tasks[0], 2)
    assert torch.equal(answers(run, bench.tasks[1]), second)
    assert not torch.equal(answers(run, bench.tasks[0]), first)
    assert run.strategies[0].learned_ == [bench.tasks[0].name, bench.tasks[1].name, bench.tasks[0].name]


def test_scoring_leaves_the_weights_as_they_were(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run(["packnet"]))
    present, places = weights(run), [p.data_ptr() for p in run.model.network.parameters()]
    run.score(bench.tasks[0])
    run.strategies[0].before_eval(run, bench.tasks[0])  # and a caller that forgets
    run.score(bench.tasks[1])
    assert_same(present, weights(run))
    assert places == [p.data_ptr() for p in run.model.network.parameters()]


def with_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))


def test_norms_with_statistics_hold_still(llama, bert):
    bench = make_bench("plain", llama, bert)
    bench = replace(bench, config=with_batch_norm(), tasks=tuple(tensor_task(i, labelled=False) for i in range(3)))
    run = bench.run(["packnet"], **ADAMW)
    bench.learn(run, upto=1)
    first = answers(run, bench.tasks[0])
    for position in (1, 2):
        learn_at(run, bench.tasks[position], position)
    assert torch.equal(answers(run, bench.tasks[0]), first)


def test_a_shared_head_and_nothing_to_share_are_refused(llama, bert):
    bench = make_bench("classify", llama, bert, head="shared")
    with pytest.raises(ConfigError, match="add classes to the head that all tasks answer by"):
        bench.run(["packnet"])
    bench = replace(make_bench("plain", llama, bert), config=nn.Linear(6, 4))
    with pytest.raises(ModelError, match="no weight matrix for tasks to share"):
        learn_at(bench.run(["packnet"]), bench.tasks[0], 0)


def test_more_tasks_than_a_byte_can_tell_apart_are_refused(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run(["packnet"])
    run.strategies[0].learned_ = ["t"] * 255
    with pytest.raises(ModelError, match="tells 255 tasks apart"):
        learn_at(run, bench.tasks[0], 0)


def test_the_record_says_what_is_used_and_it_keeps_a_byte_a_weight(llama, bert):
    bench = make_bench("plain", llama, bert)
    cost = learn_at(bench.run(["packnet"]), bench.tasks[0], 0)
    assert cost.strategy_facts["packnet"]["shares"] == {bench.tasks[0].name: 0.25}
    assert cost.strategy_bytes["packnet"] >= cost.strategy_facts["packnet"]["total"] == 6 * 16
    assert PackNet().facts()["total"] == 0


@pytest.mark.parametrize(("adapter", "merged"), [("lora", False), ("lora", True), ("full", False)])
def test_a_home_exports_the_weights_that_a_task_answers_with(adapter, merged, llama, tmp_path):
    content = {"model": {"name": str(llama), "adapter": {"name": adapter}}, "strategies": ["packnet"], "device": "cpu",
               "learner": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01}}  # fmt: skip
    home = Home.create(tmp_path / "home", settings=settings_from(content))
    for number in range(2):
        task = prompt_task(number)
        home.learn(task.name, task.train, task.evaluation, gate=Gate(1.0))
    with pytest.raises(ConfigError, match=r"packnet gives each task its own weights.*add_0, add_1"):
        home.export(tmp_path / "out", merged=merged)
    with pytest.raises(ConfigError, match=r"was not learned.*Did you mean 'add_0'"):
        home.export(tmp_path / "out", merged=merged, task="ad_0")
    versions = home._versions()
    run = versions.open(2, versions.learned_tasks(2))
    task, wanted = run.tasks["add_0"], answers(run, run.tasks["add_0"])
    folder = home.export(tmp_path / "out", merged=merged, task="add_0").path
    network = AutoModelForCausalLM.from_pretrained(llama if adapter == "lora" and not merged else folder)
    network = PeftModel.from_pretrained(network, folder) if adapter == "lora" and not merged else network
    with torch.no_grad():
        batches = row_batches(run.model.objective, task.evaluation, task, 4)
        found = torch.cat([run.model.objective.forward(network.eval(), batch).logits for _, batch in batches])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
