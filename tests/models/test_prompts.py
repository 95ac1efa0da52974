"""Prompts against the same model fed with embeddings by hand, and generation against log-likelihood."""

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from everlearn.errors import ConfigError
from everlearn.evaluation.generate import generate_greedily
from everlearn.learners.loader import row_batches
from everlearn.models.prompts import check_room, prompts_of
from everlearn.strategies.progressive_prompts import PromptStack
from support.runs import make_bench

CPU = torch.device("cpu")
METHODS = {"progressive_prompts": {"length": 3}, "l2p": {"size": 6, "length": 2, "n_chosen": 3}}


def learned(bench, name, **options):
    return bench.learn(bench.run([{"name": name, **METHODS[name], **options}], epochs=1, learning_rate=0.3))


@pytest.fixture(params=METHODS)
def causal(request, llama, bert):
    """A run of each method after two tasks, and the network without prompts."""
    bench = make_bench("causal_lora", llama, bert)
    plain = bench.run().model.network.eval()
    run = learned(bench, request.param)
    run.model.network.eval()
    return run, bench, plain


def by_hand(plain, vectors, ids):
    """Return the logits [sequence, words] of one row of tokens behind vectors, by embeddings."""
    embedded = plain.get_base_model().get_input_embeddings()(ids)
    return plain(inputs_embeds=torch.cat([vectors, embedded])[None]).logits[0, len(vectors) :]


def vectors_of(run, ids):
    """Return the vectors [n, width] that the model puts before a question."""
    prompts = prompts_of(run.model.network)
    return prompts.vectors({"input_ids": ids[None]})[0].detach()


@torch.no_grad()
def test_logits_of_padded_rows_equal_those_by_hand(causal):
    run, bench, plain = causal
    rows = list(bench.tasks[1].evaluation) + list(bench.tasks[0].evaluation)
    objective = run.model.objective
    ((_, batch),) = row_batches(objective, rows, bench.tasks[1], 8)
    assert "attention_mask" in batch
    found = objective.forward(run.model.network, batch)
    wanted = []
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        ids, labels = ids[mask.bool()], labels[mask.bool()]
        logits = by_hand(plain, vectors_of(run, ids[labels == -100]), ids)
        wanted.append(logits[:-1][labels[1:] != -100])
    torch.testing.assert_close(found.logits, torch.cat(wanted), atol=1e-4, rtol=1e-4)
    unprompted = objective.forward(plain, batch).logits
    assert not torch.allclose(found.logits, unprompted, atol=1e-2)


@torch.no_grad()
def test_generation_from_left_padded_prompts_takes_the_likeliest_token_of_the_forward_pass(causal):
    run, bench, plain = causal
    objective = run.model.objective
    prompts = [row["prompt"] for row in [*bench.tasks[0].evaluation, *bench.tasks[1].evaluation]]
    assert len({len(prompt) for prompt in prompts}) > 1
    n_new = 6
    found = generate_greedily(run.model.network, objective, objective.prompt_ids(prompts, n_new), n_new, CPU)
    for prompt, text in zip(prompts, found, strict=True):
        (ids,) = objective.prompt_ids([prompt], n_new)
        question, answer = torch.tensor(ids), []
        vectors = vectors_of(run, question)
        for _ in range(n_new):
            logits = by_hand(plain, vectors, torch.cat([question, torch.tensor(answer, dtype=torch.long)]))
            answer.append(int(logits[-1].argmax()))
            if answer[-1] == objective.tokenizer.eos_token_id:
                break
        assert text == objective.answer_of(answer)


@torch.no_grad()
def test_a_generated_answer_is_the_likeliest_by_log_likelihood_too(causal):
    run, bench, _ = causal
    objective, network = run.model.objective, run.model.network
    questions = objective.prompt_ids([row["prompt"] for row in bench.tasks[0].evaluation], 4)
    longest = max(len(ids) for ids in questions)
    left = torch.tensor([[0] * (longest - len(ids)) + ids for ids in questions])
    answers = network.generate(
        input_ids=left, attention_mask=(left != 0).long(), max_new_tokens=4, do_sample=False, pad_token_id=0
    )[:, longest:].tolist()
    answers = [answer[: answer.index(2) + 1] if 2 in answer else answer for answer in answers]
    rows = [
        {"input_ids": [*question, *answer], "labels": [-100] * len(question) + answer}
        for question, answer in zip(questions, answers, strict=True)
    ]
    outputs = objective.forward(network, objective.collate(rows))
    assert len(outputs.targets) == sum(len(answer) for answer in answers)
    assert torch.equal(outputs.logits.argmax(-1), outputs.targets)


@torch.no_grad()
def test_with_learned_positions_as_well():
    torch.manual_seed(0)
    plain = GPT2LMHeadModel(
        GPT2Config(vocab_size=20, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
    ).eval()
    network = copy.deepcopy(plain)
    stack = PromptStack(network, place=0)
    stack.values.append(torch.nn.Parameter(torch.randn(3, 16)))
    stack.n_active = 1
    questions = [[5, 6, 7, 8], [9, 10]]
    ids = torch.tensor([questions[0], [0, 0, *questions[1]]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    found = network.generate(input_ids=ids, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0)
    for question, answer in zip(questions, found[:, 4:].tolist(), strict=True):
        so_far = list(question)
        for token in answer:
            embedded = torch.cat([stack.values[0], plain.transformer.wte(torch.tensor(so_far))])
            so_far.append(int(plain(inputs_embeds=embedded[None]).logits[0, -1].argmax()))
            assert token == so_far[-1]
            if token == 2:
                break


def test_in_an_encoder_they_stand_after_the_first_token(llama, bert):
    bench = make_bench("tag", llama, bert)
    run = learned(bench, "progressive_prompts")
    run.model.network.eval()
    plain = bench.run().model.network.get_base_model().base_model.eval()
    backbone, stack = run.model.network.get_base_model().base_model, prompts_of(run.model.network)
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
    mask = (ids != 0).long()
    wide = torch.cat([mask[:, :1], torch.ones(2, 6, dtype=torch.long), mask[:, 1:]], dim=1)
    with torch.no_grad():
        found = backbone(ids, attention_mask=mask).last_hidden_state
        vectors, embedded = stack.vectors({"input_ids": ids}), plain.get_input_embeddings()(ids)
        joined = torch.cat([embedded[:, :1], vectors, embedded[:, 1:]], dim=1)
        wanted = plain(inputs_embeds=joined, attention_mask=wide).last_hidden_state
    wanted = torch.cat([wanted[:, :1], wanted[:, 7:]], dim=1)
    torch.testing.assert_close(found[mask.bool()], wanted[mask.bool()], atol=1e-5, rtol=1e-5)


def test_rows_that_leave_no_room_are_refused_before_training(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    model = bench.run().model
    check_room(model, bench.tasks[0], 40)
    with pytest.raises(ConfigError, match=r"don't fit the model's 64 tokens.*max_length to 9"):
        check_room(model, bench.tasks[0], 55)
    with pytest.raises(ConfigError, match=r"task 'add_0': rows and prompts don't fit"):
        bench.learn(bench.run([{"name": "progressive_prompts", "length": 60}]))


def test_prompts_of_another_kind_are_refused(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run(["l2p"], epochs=1), upto=1)
    other = bench.run(["progressive_prompts"])
    other.load_state(run.state())
    with pytest.raises(ConfigError, match="prompts of another kind already"):
        other.learn(bench.tasks[1])
