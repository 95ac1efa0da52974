"""Direct preference optimisation, against its formula written out from log-probabilities."""

import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError, StreamError
from everlearn.functional.fisher import sum_of_squared_gradients
from everlearn.learners.loader import row_batches
from everlearn.models.load import AdapterConfig, ModelConfig, load_model, network_kind
from everlearn.models.objectives import item_losses, mean_loss
from support.models import byte_tokenizer
from support.runs import make_bench, start_lora_away_from_zero
from support.tasks import preference_task, prompt_task


@pytest.fixture
def learned(llama, bert):
    """Return a run whose LoRA says something, its task and a batch of all its rows."""
    bench = make_bench("preference", llama, bert)
    run = bench.run()
    start_lora_away_from_zero(run)
    task = replace(bench.tasks[0], beta=0.3)
    ((_, batch),) = row_batches(run.model.objective, task.train, task, 100)
    return run, task, batch


def log_likelihood(network, prompt, answer):
    """Return log p(answer and its end | prompt) by one pass over the bare tokens of one text."""
    tokenizer = byte_tokenizer()
    asked, said = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer))
    ids = [tokenizer.bos_token_id, *asked, *said, tokenizer.eos_token_id]
    log_p = network(torch.tensor([ids])).logits[0].log_softmax(-1)
    first = 1 + len(asked)
    return sum(log_p[place - 1, ids[place]].item() for place in range(first, len(ids)))


def test_the_loss_is_that_of_dpo(learned):
    run, task, batch = learned
    with torch.no_grad(), run.model.evaluating():
        losses = item_losses(run.model.objective.forward(run.model.network, batch)).tolist()
        for row, loss in zip(task.train, losses, strict=True):
            now = {side: log_likelihood(run.model.network, row["prompt"], row[side]) for side in ("chosen", "rejected")}
            with run.model.network.disable_adapter():
                base = {s: log_likelihood(run.model.network, row["prompt"], row[s]) for s in ("chosen", "rejected")}
            # TRL's `sigmoid`: -logsigmoid(beta * (pi_logratios - ref_logratios))
            margin = 0.3 * ((now["chosen"] - now["rejected"]) - (base["chosen"] - base["rejected"]))
            assert loss == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-4)
    assert max(losses) - min(losses) > 1e-4


def test_gradients_flow_into_the_adapter_alone_and_training_flags_stay(learned):
    run, _, batch = learned
    run.model.train()
    flags = {name: p.requires_grad for name, p in run.model.network.named_parameters()}
    mean_loss(run.model.objective.forward(run.model.network, batch)).backward()
    assert {name: p.requires_grad for name, p in run.model.network.named_parameters()} == flags
    assert all((p.grad is not None) == p.requires_grad for p in run.model.network.parameters())
    assert run.model.network.training


def test_before_training_nothing_is_preferred_and_the_loss_is_a_toss_up(llama, bert):
    bench = make_bench("preference", llama, bert)
    run, task = bench.run(), bench.tasks[0]
    score = run.score(task)
    assert (score.metric, score.value, score.metrics["reward_margin"]) == ("reward_accuracy", 0.0, 0.0)
    ((_, batch),) = row_batches(run.model.objective, task.train, task, 100)
    assert mean_loss(run.model.objective.forward(run.model.network, batch)).item() == pytest.approx(math.log(2))


def test_the_fisher_is_that_of_the_choice_at_any_batch_size(learned):
    run, task, _ = learned
    parameters, objective = run.model.adapters.trainable(), run.model.objective

    def fisher(size):
        batches = (batch for _, batch in row_batches(objective, task.train, task, size))
        with run.model.evaluating():
            return sum_of_squared_gradients(
                run.model.network, parameters, batches, lambda b: objective.forward(run.model.network, b), "exact"
            )

    (of_one, n_one), (of_five, n_five) = fisher(1), fisher(5)
    assert n_one == n_five == len(task.train)
    for name in of_one:
        torch.testing.assert_close(of_five[name], of_one[name], rtol=1e-3, atol=1e-8)
    ((_, batch),) = row_batches(objective, task.train[:1], task, 1)
    with run.model.evaluating():
        margin = objective.forward(run.model.network, batch).logits[0, 0]
    name, weight = next(iter(parameters.items()))
    p = torch.sigmoid(margin.detach())
    (gradient,) = torch.autograd.grad(margin, weight)
    first = (b for _, b in row_batches(objective, task.train[:1], task, 1))
    found, _ = sum_of_squared_gradients(
        run.model.network, {name: weight}, first, lambda b: objective.forward(run.model.network, b), "exact"
    )
    torch.testing.assert_close(found[name], p * (1 - p) * gradient.square(), rtol=1e-3, atol=1e-10)


def test_pairs_of_conversations_are_written_by_the_chat_template(llama, bert):
    objective = make_bench("preference", llama, bert).run().model.objective
    row = {"prompt": [{"role": "user", "content": "hi"}], "chosen": "yes", "rejected": "no"}
    assert objective.is_chat(row)
    task = replace(preference_task(0), train=[row])
    with pytest.raises(StreamError, match="the tokenizer has no chat template"):
        objective.encode([row], task)


def test_what_can_not_be_learned_is_refused(llama, bert):
    with pytest.raises(ConfigError, match=r"model.adapter.name: preferences are learned beside .* no base would be"):
        load_model(ModelConfig(str(llama), AdapterConfig("full")), [preference_task(0)])
    with pytest.raises(ConfigError, match=r"its tasks need different kinds of model. Got \{'prompt': .*'preference'"):
        network_kind([prompt_task(0), preference_task(1)])
    bench = make_bench("preference", llama, bert)
    packed = bench.run(packing=True)
    with pytest.raises(ConfigError, match=r"learner.packing: takes one text a row, and preferences have two"):
        bench.learn(packed, upto=1)


def test_a_worker_process_is_sent_the_objective_without_the_model(learned):
    run, task, batch = learned
    sent = pickle.loads(pickle.dumps(run.model.objective))
    assert sent.base is None
    again = sent.collate(sent.take(sent.encode(task.train, task), list(range(len(task.train)))))
    assert all(torch.equal(again[name], batch[name]) for name in batch)
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert F.pad(batch["labels"], (0, 0))[padding].eq(-100).all()
