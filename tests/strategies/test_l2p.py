import pytest
import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError
from everlearn.learners.loader import row_batches
from everlearn.models.prompts import prompts_of
from everlearn.strategies.l2p import choose
from everlearn.types import Step
from support.runs import Bench, make_bench, weights
from support.tasks import text_task


@pytest.fixture
def bench(llama, bert):
    return make_bench("causal_lora", llama, bert)


def first_step(bench, **fields):
    """Return a run at a step of its first task, with the outputs of one batch."""
    run = bench.run([{"name": "l2p", **fields}])
    task = bench.tasks[0]
    run.add_labels(task)
    run.strategies[0].adapt_model(run, task)
    run.strategies[0].before_eval(run, task)
    (_, batch), *_ = row_batches(run.model.objective, task.train, task, 6)
    step = Step(run, task, run.model.adapters.trainable(), batch=batch)
    step.outputs = run.model.objective.forward(run.model.network, batch)
    return run, step


def test_the_nearest_keys_are_chosen():
    torch.manual_seed(0)
    query, keys = torch.randn(7, 5), torch.randn(9, 5) * torch.rand(9, 1) * 100
    indices, distances = choose(query, keys, 3)
    for row in range(7):
        cosines = [F.cosine_similarity(query[row], key, dim=0).item() for key in keys]
        best = sorted(range(9), key=lambda i: -cosines[i])[:3]
        assert indices[row].tolist() == best
        assert distances[row].item() == pytest.approx(sum(1 - cosines[i] for i in best), abs=1e-5)


def test_the_query_is_the_bare_model_s_mean_over_the_question(bench):
    run, step = first_step(bench)
    plain = bench.run().model.network.get_base_model().base_model
    _, queries = prompts_of(run.model.network).last
    assert "attention_mask" in step.batch
    for row, query in enumerate(queries):
        n = int((step.batch["labels"][row] == -100).sum() - (step.batch["attention_mask"][row] == 0).sum())
        hidden = plain(step.batch["input_ids"][row : row + 1, :n]).last_hidden_state[0]
        torch.testing.assert_close(query, hidden.mean(0).detach(), atol=1e-4, rtol=1e-4)


def test_the_pull_is_weighed_by_targets_and_reaches_the_keys_alone(bench):
    run, step = first_step(bench, strength=0.3)
    pool = prompts_of(run.model.network)
    _, distances = choose(pool.last[1], pool.keys, 4)
    counts = (step.batch["labels"] != -100).sum(1)
    found = run.strategies[0].penalty(step)
    torch.testing.assert_close(found, 0.3 * (distances * counts).sum() / counts.sum())
    gradients = torch.autograd.grad(found, [pool.keys, pool.values], allow_unused=True)
    assert gradients[0].abs().sum() > 0
    assert gradients[1] is None
    run.model.objective.forward(run.model.network, {name: t[:2] for name, t in step.batch.items()})
    torch.testing.assert_close(run.strategies[0].penalty(step), found)  # whoever used the model in between


def test_chosen_prompts_and_keys_move_and_the_model_does_not(bench):
    run = bench.run([{"name": "l2p", "size": 40, "n_chosen": 1}], optimizer="sgd", learning_rate=0.5)
    run.strategies[0].adapt_model(run, bench.tasks[0])
    before = {name: p.detach().clone() for name, p in run.model.network.named_parameters()}
    run.strategies[0].adapt_model = lambda *_: None
    bench.learn(run, upto=1)
    moved = {name: (p != before[name]) for name, p in run.model.network.named_parameters()}
    assert {name.rpartition(".")[2] for name, m in moved.items() if m.any()} == {"keys", "values"}
    rows = {name.rpartition(".")[2]: m.flatten(1).any(1) for name, m in moved.items() if m.any()}
    assert torch.equal(rows["keys"], rows["values"])
    assert 0 < rows["keys"].sum() < 40


def test_training_flags_of_the_model_come_back(bench):
    run, step = first_step(bench)
    run.model.network.train()
    run.model.network.get_base_model().base_model.layers[0].eval()
    flags = [module.training for module in run.model.network.modules()]
    run.model.objective.forward(run.model.network, step.batch)
    assert flags == [module.training for module in run.model.network.modules()]


def test_a_classifier_s_head_is_trained_and_its_lora_is_not(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run(["l2p"], epochs=1))
    names = run.model.adapters.trainable()
    assert any("classifier.blocks" in name for name in names)
    assert not any("lora" in name for name in names)
    assert all((t == 0).all() for name, t in weights(run).items() if "lora_B" in name)


def test_texts_are_refused(bench):
    texts = Bench(bench.kind, bench.config, (text_task(0),))
    with pytest.raises(ConfigError, match=r"'l2p', task 'text_0'.*progressive_prompts"):
        texts.learn(texts.run(["l2p"]))
