import pytest
import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ModelError
from everlearn.memory import scores
from everlearn.memory.scores import row_embeddings, row_entropies, row_gradients, row_losses, row_margins
from everlearn.models.objectives import item_losses
from support.runs import make_bench
from support.tasks import text_task

KINDS = ("causal_lora", "classify", "tag", "plain")


@pytest.fixture(params=KINDS)
def learned(request, llama, bert):
    """A run after its first task, in training mode with dropout, and that task."""
    bench = make_bench(request.param, llama, bert, dropout=0.3)
    run = bench.learn(bench.run(epochs=1), upto=1)
    run.model.network.train()
    return run, bench.tasks[0]


def one_by_one(run, task):
    """Yield the batch and outputs of each row alone."""
    run.model.network.eval()
    features = run.model.objective.encode(task.train, task)
    for i in range(len(features)):
        batch = run.model.objective.collate(run.model.objective.take(features, [i]))
        yield batch, run.model.objective.forward(run.model.network, batch)


def test_losses_and_uncertainties_are_means_over_a_row_s_targets(learned):
    run, task = learned
    found = [measure(run, task, task.train, 5) for measure in (row_losses, row_entropies, row_margins)]
    assert run.model.network.training
    for i, (_, outputs) in enumerate(one_by_one(run, task)):
        p = outputs.logits.softmax(-1)
        top = p.sort(-1).values
        wanted = (item_losses(outputs).mean(), torch.special.entr(p).sum(-1).mean(), (top[:, -1] - top[:, -2]).mean())
        for values, value in zip(found, wanted, strict=True):
            torch.testing.assert_close(values[i], value.detach(), rtol=1e-4, atol=1e-6)


def test_embeddings_are_what_the_output_layer_reads(learned):
    run, task = learned
    found = row_embeddings(run, task, task.train, 5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(task.train)))
    network = run.model.network.eval()
    for i, (batch, _) in enumerate(one_by_one(run, task)):
        if run.model.kind == "tensor":
            wanted = nn.Sequential(*list(network)[:-1])(batch["x"])[0]
        else:
            inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "tasks")}
            last = network(**inputs, output_hidden_states=True).hidden_states[-1][0]
            labels = batch["labels"][0]
            if run.model.kind == "causal":
                last, labels = last[:-1], labels[1:]
            pooled = run.model.kind == "classify"
            wanted = run.model.adapters.head._features[0] if pooled else last[labels != -100].mean(0)
        torch.testing.assert_close(found[i], F.normalize(wanted.detach(), dim=0), rtol=1e-4, atol=1e-5)
    assert not run.model.network._forward_pre_hooks


def test_gradients_are_by_the_trainable_weights_and_leave_those_there_alone(learned, monkeypatch):
    run, task = learned
    parameters = list(run.model.adapters.trainable().values())
    monkeypatch.setattr(scores, "SKETCH_WIDTH", sum(p.numel() for p in parameters))
    parameters[0].grad = torch.full_like(parameters[0], 7.0)
    found = row_gradients(run, task, task.train)
    assert parameters[0].grad.eq(7).all()
    for i, (_, outputs) in enumerate(one_by_one(run, task)):
        gradients = torch.autograd.grad(item_losses(outputs).mean(), parameters, allow_unused=True)
        pairs = zip(parameters, gradients, strict=True)
        wanted = torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for p, g in pairs])
        torch.testing.assert_close(found[i], wanted, rtol=1e-4, atol=1e-6)


def test_a_sketch_keeps_cosines(llama, bert, monkeypatch):
    bench = make_bench("causal_full", llama, bert)
    run, task = bench.run(), bench.tasks[0]
    sketched = row_gradients(run, task, task.train)
    assert sketched.shape == (12, 1024)
    assert torch.equal(sketched, row_gradients(run, task, task.train))
    monkeypatch.setattr(scores, "SKETCH_WIDTH", 10**6)
    whole = row_gradients(run, task, task.train)
    assert whole.shape[1] > 10_000

    def cosines(gradients):
        return F.normalize(gradients, dim=1) @ F.normalize(gradients, dim=1).T

    assert (cosines(sketched) - cosines(whole)).abs().max() < 5 / 1024**0.5


def test_running_text_and_no_rows(llama, bert):
    run, task = make_bench("causal_lora", llama, bert).run(), text_task(0)
    assert row_embeddings(run, task, task.train, 4).shape == (12, 32)
    assert row_losses(run, task, [], 4).shape == (0,)


def test_a_model_without_an_output_layer(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run()
    run.model.adapters.network = nn.Flatten()
    with pytest.raises(ModelError, match="no output layer"):
        row_embeddings(run, bench.tasks[0], bench.tasks[0].train, 4)
