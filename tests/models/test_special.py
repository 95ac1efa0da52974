import pytest
import torch
from tokenizers import processors
from transformers import GPT2Config, GPT2LMHeadModel

from everlearn.errors import ModelError
from everlearn.learners.loader import row_batches
from everlearn.models.causal import CausalObjective
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.models.special import check_together, padding_id, special_ids
from support.models import byte_tokenizer, make_bert, make_llama
from support.runs import make_bench
from support.tasks import classify_task, prompt_task, tag_task, text_task

PAD, BOS, EOS = 0, 1, 2


def appending_tokenizer():
    """Puts <eos> after every text, as T5's and some Llamas' tokenizers do."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
    )
    return tokenizer


def gpt2(folder, side):
    """Save a tiny model with absolute positions, whose tokenizer pads on `side`."""
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = side
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64, pad_token_id=PAD, bos_token_id=BOS,
        eos_token_id=EOS, initializer_range=0.2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_what_stands_around_a_text():
    assert special_ids(byte_tokenizer()) == ([BOS], [])
    assert special_ids(appending_tokenizer()) == ([BOS], [EOS])


def test_what_belongs_after_a_whole_text_does_not_end_a_prompt():
    plain, appending = (CausalObjective(tokenizer, 64) for tokenizer in (byte_tokenizer(), appending_tokenizer()))
    for task in (prompt_task(0), text_task(0)):
        assert list(plain.encode(task.train, task)) == list(appending.encode(task.train, task))
    assert plain.prompt_ids(["1+1="], 4) == appending.prompt_ids(["1+1="], 4)


def test_a_tokenizer_without_a_pad_token_gets_one_that_ends_no_text():
    tokenizer = byte_tokenizer()
    assert padding_id(tokenizer) == PAD
    tokenizer.pad_token = None
    assert padding_id(tokenizer) == BOS


@pytest.mark.parametrize("task", [classify_task(0), tag_task(0)], ids=["classify", "tag"])
def test_classifiers_need_no_pad_token_and_answer_alone_as_in_a_batch(task, tmp_path):
    make_llama(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert_alone_as_in_a_batch(tmp_path, task)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("task", [classify_task(0), tag_task(0), prompt_task(0)], ids=["classify", "tag", "prompt"])
def test_absolute_positions_answer_alone_as_in_a_batch(task, side, tmp_path):
    assert_alone_as_in_a_batch(gpt2(tmp_path, side), task)


def assert_alone_as_in_a_batch(folder, task):
    model = load_model(ModelConfig(str(folder), AdapterConfig("full")), [task])
    if task.labels:
        model.adapters.do("labels", task=task.name, labels=list(task.labels), seed=0)
    with torch.no_grad(), model.evaluating():
        together, alone = (
            torch.cat(
                [
                    model.objective.forward(model.network, batch).logits
                    for _, batch in row_batches(model.objective, task.train, task, size)
                ]
            )
            for size in (len(task.train), 1)
        )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_each_tag_stands_at_its_word_whatever_side_the_tokenizer_pads_on(side, llama, bert):
    bench = make_bench("tag", llama, bert)
    run, task = bench.run(), bench.tasks[0]
    run.add_labels(task)
    objective = run.model.objective
    objective.tokenizer.padding_side = side
    features = objective.encode(task.train, task)
    batch = objective.collate(features)
    assert len({len(feature["input_ids"]) for feature in features}) > 1
    for row, ids, labels, mask in zip(
        task.train, batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
    ):
        words = objective.tokenizer.convert_ids_to_tokens(ids[labels >= 0])
        assert [word[:3] for word in words] == [word[:3] for word in row["tokens"]]
        assert labels[labels >= 0].tolist() == row["tags"]
        assert (labels[mask == 0] < 0).all()


def test_tokenizer_and_weights_must_belong_together(tmp_path):
    make_llama(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"don't belong together: the largest token is 259. Got '259 embeddings'"):
        load_model(ModelConfig(str(tmp_path)), [prompt_task(0)])
    check_together("m", tokenizer, 260)
    make_bert(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="don't belong together"):
        load_model(ModelConfig(str(tmp_path / "bert")), [classify_task(0)])
