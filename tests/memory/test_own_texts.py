from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError
from everlearn.memory import own_texts
from everlearn.memory.own_texts import TASK, divergences_on, first_texts, rows_of_texts, write_own_texts
from everlearn.models.chat import ChatFormat
from support.chat import chat_tokenizer
from support.runs import make_bench

SIZES = {"n_texts": 6, "max_tokens": 5, "top_k": 8, "batch_size": 4}


@pytest.fixture
def run(llama, bert):
    return make_bench("causal_lora", llama, bert).run()


def chatting(run, template):
    """Let the run's model talk in a chat template; new marks have no embedding, so the byte tokens stand for them."""
    objective = run.model.objective
    objective.tokenizer = chat_tokenizer(template)
    run.model.network.get_base_model().resize_token_embeddings(len(objective.tokenizer), mean_resizing=False)
    objective.wraps = True
    objective.format = ChatFormat.of(objective.tokenizer)
    objective.stop_ids = sorted({*objective.stop_ids, objective.format.end_id} - {None})
    return objective


def move(run, size=0.3):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in run.model.adapters.trainable().values():
            p.add_(size * torch.randn(p.shape, generator=generator))


def test_a_text_begins_as_all_do_and_is_as_long_as_was_asked_at_most(run):
    texts, answers = write_own_texts(run, **SIZES, purpose=("a",))
    rows = rows_of_texts(texts)
    assert [row["input_ids"][0] for row in rows] == [1] * 6  # <bos>
    assert all(row["n_asked"] == 1 and 2 <= len(row["input_ids"]) <= 6 for row in rows)
    assert len({tuple(row["input_ids"]) for row in rows}) > 1
    assert answers["counts"].tolist() == [len(row["input_ids"]) - 1 for row in rows]
    assert {tensor.dtype for tensor in texts.values()} == {torch.int32}
    features = run.model.objective.encode(rows, TASK)
    assert [list(one["labels"]) for one in features] == [[-100, *row["input_ids"][1:]] for row in rows]


def test_texts_depend_on_their_purpose_and_on_nothing_else(run, monkeypatch):
    state = torch.get_rng_state()
    texts, answers = write_own_texts(run, **SIZES, purpose=("a",))
    assert torch.equal(torch.get_rng_state(), state)
    move(run)  # what is learned is no part of the base
    monkeypatch.setattr(own_texts, "WRITTEN_AT_ONCE", 2)
    again, same = write_own_texts(run, **SIZES, purpose=("a",))
    assert all(torch.equal(again[name], texts[name]) for name in texts)
    assert all(torch.equal(same[name], answers[name]) for name in answers)
    other, _ = write_own_texts(run, **SIZES, purpose=("b",))
    assert not torch.equal(other["ids"], texts["ids"])


@torch.no_grad()
@pytest.mark.parametrize("top_k", [3, 10**6])
def test_the_divergence_is_the_one_written_out(run, top_k):
    texts, answers = write_own_texts(run, **{**SIZES, "top_k": top_k}, purpose=("a",))
    rows, network = rows_of_texts(texts), run.model.network.eval()
    before = [network(torch.tensor([row["input_ids"]])).logits[0, :-1].log_softmax(-1) for row in rows]
    assert all(abs(total) < 1e-4 for total, _ in divergences_on(run, texts, answers, 4))
    move(run)
    found = divergences_on(run, texts, answers, 4)
    for row, p, (total, n) in zip(rows, before, found, strict=True):
        q = network(torch.tensor([row["input_ids"]])).logits[0, :-1].log_softmax(-1)
        columns = p.topk(min(top_k, p.shape[1])).indices
        kept = [one.gather(1, columns) for one in (p, q)]
        if top_k < p.shape[1]:
            kept = [torch.cat([one, torch.log1p(-one.exp().sum(1, keepdim=True))], 1) for one in kept]
        assert n == len(p)
        assert total == pytest.approx(F.kl_div(kept[1], kept[0], reduction="sum", log_target=True).item(), rel=0.01)
        assert 0 < total <= F.kl_div(q, p, reduction="sum", log_target=True).item() * 1.01


@pytest.mark.parametrize("template", ["chatml", "llama3", "gemma3", "qwen3", "mistral"])
def test_a_chat_model_asks_and_answers_itself(run, template):
    objective = chatting(run, template)
    texts, answers = write_own_texts(run, **{**SIZES, "max_tokens": 8}, purpose=("a",))
    for row, n_answered in zip(rows_of_texts(texts), answers["counts"].tolist(), strict=True):
        ids, n = row["input_ids"], row["n_asked"]
        asked = objective.tokenizer.decode(ids[:n])
        (before, after) = objective.format.render([{"role": "user", "content": "§"}], asks=True).split("§")
        assert asked.startswith(objective.tokenizer.decode(objective.format.ids(before)))
        assert asked.endswith(after)
        assert n_answered == len(ids) - n <= 8


def test_the_first_texts_are_kept_with_what_was_thought_of_them(run):
    texts, answers = write_own_texts(run, **SIZES, purpose=("a",))
    kept, theirs = first_texts(texts, answers, 2)
    assert rows_of_texts(kept) == rows_of_texts(texts)[:2]
    n = int(answers["counts"][:2].sum())
    assert torch.equal(theirs["values"], answers["values"][:n])
    assert rows_of_texts(first_texts(texts, answers, 100)[0]) == rows_of_texts(texts)


def test_a_tokenizer_whose_texts_begin_with_nothing_is_refused(run):
    objective = run.model.objective
    objective.prefix, objective.tokenizer = [], chat_tokenizer("chatml")
    objective.tokenizer.bos_token = objective.tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no token begins a text"):
        write_own_texts(run, **SIZES, purpose=("a",))


def test_without_a_mark_of_their_own_texts_begin_with_the_bos_or_eos_token(run):
    run.model.objective.prefix = []
    run.model.objective.tokenizer.bos_token = None
    texts, _ = write_own_texts(run, **SIZES, purpose=("a",))
    assert {row["input_ids"][0] for row in rows_of_texts(texts)} == {2}  # <eos>


def test_a_small_context_has_room_for_half_as_much(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = replace(bench, config=replace(bench.config, max_length=8)).run()
    texts, _ = write_own_texts(run, **{**SIZES, "max_tokens": 100}, purpose=("a",))
    assert int(texts["lengths"].max()) <= 8
