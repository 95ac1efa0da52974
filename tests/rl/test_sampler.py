"""Answers that are drawn: the model's own, as often as it says, from a copy that follows it."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconMambaConfig,
    FalconMambaForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from everlearn.evaluation.generate import generate_greedily
from everlearn.models.adapters import Adapters
from everlearn.models.causal import CausalObjective
from everlearn.models.load import POCKET, AdapterConfig, Model, ModelConfig, load_model
from everlearn.rl.sampler import Sampler
from support.models import byte_tokenizer
from support.policy import ADAPTERS
from support.runs import make_bench, start_lora_away_from_zero
from support.tasks import prompt_task

CPU = torch.device("cpu")
SIZES = {"vocab_size": 259, "hidden_size": 16, "num_hidden_layers": 2}
HEADS = {"intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, initializer_range=0.5)),
    "gpt2, which learns its positions": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=259, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5)
    ),
    "bloom, which takes none": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=259, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.5)
    ),
    "gemma2, half of whose layers slide a window": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, **HEADS, sliding_window=8, initializer_range=0.5)
    ),
    "mistral, whose window slides": lambda: MistralForCausalLM(
        MistralConfig(**SIZES, **HEADS, sliding_window=8, initializer_range=0.5)
    ),
    "lfm2, half of whose layers have a state in place of keys": lambda: Lfm2ForCausalLM(
        Lfm2Config(**SIZES, **HEADS, layer_types=["conv", "full_attention"], initializer_range=0.5)
    ),
    "mamba, which has a state in place of a cache": lambda: FalconMambaForCausalLM(
        FalconMambaConfig(**SIZES, state_size=4, initializer_range=0.5)
    ),
}
PROMPTS = ["1+1=", "x" * 20, "?", "abc", "a longer one, of which nothing is repeated"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def built(make):
    """A model around a network with random weights, none of which is trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make().eval()
    return Model("built", "causal", Adapters(network), CausalObjective(byte_tokenizer(), 64))


def one_by_one(model, prompt, n):
    """Return the likeliest tokens, each by a pass over all before it."""
    ids = list(prompt)
    for _ in range(n):
        with torch.no_grad(), model.evaluating():
            ids.append(int(model.network(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in model.objective.stop_ids:
            break
    return ids[len(prompt) :]


@pytest.fixture(scope="module", params=ADAPTERS)
def pocket(request):
    """Pocket with a LoRA that has learned something, and whole."""
    model = load_model(ModelConfig(POCKET, ADAPTERS[request.param]), [prompt_task(0)], 0)
    if request.param == "lora":
        start_lora_away_from_zero(SimpleNamespace(model=model))
    return model


def test_at_temperature_0_pocket_answers_as_scored(pocket):
    prompts = pocket.objective.prompt_ids(PROMPTS, 12)
    drawn = Sampler(pocket, CPU, "float32").draw(prompts, 2, 12, seeded(), temperature=0.0)
    with torch.no_grad(), pocket.evaluating():
        wanted = generate_greedily(pocket.network, pocket.objective, prompts, 12, CPU)
    assert [pocket.objective.answer_of(first) for first, _ in drawn] == wanted
    assert all(first == second for first, second in drawn)
    assert drawn[0][0] == one_by_one(pocket, prompts[0], 12)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_every_kind_of_model_answers_token_by_token(make):
    model = built(make)
    prompts = model.objective.prompt_ids(PROMPTS, 16)
    drawn = Sampler(model, CPU, "float32").draw(prompts, 1, 16, seeded(), temperature=0.0)
    assert [ids for (ids,) in drawn] == [one_by_one(model, prompt, 16) for prompt in prompts]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_an_answer_depends_on_its_own_numbers_not_on_its_batch(make, monkeypatch):
    model = built(make)
    model.objective.stop_ids = list(range(60))  # some end soon, and are let go
    sampler, prompts = Sampler(model, CPU, "float32"), model.objective.prompt_ids(PROMPTS, 16)
    together = sampler.draw(prompts, 6, 16, seeded())
    assert sampler.draw(prompts, 6, 16, seeded()) == together
    assert sampler.draw(prompts, 6, 16, seeded(1)) != together
    lengths = [len(ids) for of_prompt in together for ids in of_prompt]
    assert min(lengths) < max(lengths)
    monkeypatch.setattr("everlearn.rl.sampler.ROWS", 6)  # a prompt at a time
    assert sampler.draw(prompts, 6, 16, seeded()) == together


def test_an_answer_holds_the_token_that_ends_it_and_nothing_behind(llama, bert):
    model = make_bench("causal_full", llama, bert).run().model
    model.objective.stop_ids = list(range(100))
    drawn = Sampler(model, CPU).draw(model.objective.prompt_ids(PROMPTS, 16), 16, 16, seeded())
    every = [ids for of_prompt in drawn for ids in of_prompt]
    assert len(every) == 80
    for ids in every:
        ends = [token < 100 for token in ids]
        assert not any(ends[:-1])
        assert ends[-1] or len(ids) == 16
    assert len({len(ids) for ids in every}) > 3


def test_tokens_are_drawn_as_often_as_the_model_says(llama, bert):
    """Chi-square of the first tokens, and of the second ones behind the most frequent first."""
    model = make_bench("causal_full", llama, bert).run().model
    (prompt,), n = model.objective.prompt_ids(["1+1="], 2), 6000
    state = torch.get_rng_state()
    for temperature in (1.0, 0.5):
        (drawn,) = Sampler(model, CPU, "float32").draw([prompt], n, 2, seeded(), temperature)
        firsts = torch.tensor([ids[0] for ids in drawn])
        common = int(torch.bincount(firsts).argmax())
        seconds = torch.tensor([ids[1] for ids in drawn if ids[0] == common])
        for before, tokens in ((prompt, firsts), ([*prompt, common], seconds)):
            with torch.no_grad(), model.evaluating():
                p = (model.network(torch.tensor([before])).logits[0, -1] / temperature).softmax(-1)
            wanted = p * len(tokens)
            often = wanted > 5
            counts = torch.bincount(tokens, minlength=len(p))
            chi_square = ((counts - wanted).square() / wanted)[often].sum().item()
            assert often.sum() > 10
            assert chi_square < often.sum() + 4 * (2 * often.sum()) ** 0.5
    assert torch.equal(torch.get_rng_state(), state)


def test_a_copy_follows_the_lora_when_it_is_told_to(llama, bert):
    run = make_bench("causal_lora", llama, bert).run()
    model, prompts = run.model, run.model.objective.prompt_ids(PROMPTS, 8)
    sampler = Sampler(model, CPU, "float32")
    before = sampler.draw(prompts, 1, 8, seeded(), temperature=0.0)
    start_lora_away_from_zero(run)
    assert sampler.draw(prompts, 1, 8, seeded(), temperature=0.0) == before
    kept = {name: p.clone() for name, p in model.network.named_parameters()}
    sampler.refresh()
    after = sampler.draw(prompts, 1, 8, seeded(), temperature=0.0)
    assert after != before
    assert [ids for (ids,) in after] == [one_by_one(model, prompt, 8) for prompt in prompts]
    assert all(torch.equal(p, kept[name]) for name, p in model.network.named_parameters())


@pytest.mark.parametrize(
    ("options", "copied"),
    [
        ({"adapter": AdapterConfig("lora", rank=4, targets=["q_proj", "down_proj"])}, True),
        ({"adapter": AdapterConfig("lora", rank=4, targets=["q_proj", "lm_head"])}, False),  # the embeddings' weights
        ({"adapter": AdapterConfig("lora", rank=4, targets=["q_proj", "embed_tokens"])}, False),
        ({"adapter": AdapterConfig("lora", rank=4), "chat_template": "chatml"}, False),  # new tokens are trained
    ],
    ids=["some layers", "output layer", "embeddings", "new tokens"],
)
def test_wherever_a_lora_is_it_has_its_part(options, copied, llama):
    model = load_model(ModelConfig(str(llama), **options), [prompt_task(0)], 0)
    with torch.no_grad():
        for p in model.adapters.trainable().values():
            p.add_(torch.randn(p.shape, generator=seeded(1)) * 0.3)
    prompts = model.objective.prompt_ids(PROMPTS[:3], 10)
    sampler = Sampler(model, CPU, "float32")
    assert (sampler._copy is not None) == copied
    drawn = sampler.draw(prompts, 1, 10, seeded(), temperature=0.0)
    assert [ids for (ids,) in drawn] == [one_by_one(model, prompt, 10) for prompt in prompts]


@pytest.mark.parametrize(
    "name", ["olora", "inclora", "inflora", "separate", "grow", "progressive_prompts", "l2p", "pnn", "hat"]
)
def test_whatever_strategies_add_has_its_part(name, llama, bert):
    """After two tasks: a LoRA on another, one a task, soft prompts; drawn from a copy, or from the model itself."""
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run([name], learning_rate=0.1))
    model = run.model
    sampler, prompts = Sampler(model, CPU, "float32"), model.objective.prompt_ids(PROMPTS[:4], 8)
    for task in bench.tasks:
        with run.ready_for(task):
            sampler.refresh()
            drawn = sampler.draw(prompts, 1, 8, seeded(), temperature=0.0)
            with torch.no_grad(), model.evaluating():
                wanted = generate_greedily(model.network, model.objective, prompts, 8, CPU)
        assert [model.objective.answer_of(ids) for (ids,) in drawn] == wanted


def test_in_bfloat16_a_copy_of_whole_weights_follows_too(llama, bert):
    run = make_bench("causal_full", llama, bert).run()
    prompts = run.model.objective.prompt_ids(PROMPTS, 8)
    sampler = Sampler(run.model, CPU, "bfloat16")
    before = sampler.draw(prompts, 4, 8, seeded())
    with torch.no_grad():
        for p in run.model.network.parameters():
            p.add_(torch.randn(p.shape, generator=seeded(2)) * 0.2)
    assert sampler.draw(prompts, 4, 8, seeded()) == before
    sampler.refresh()
    assert sampler.draw(prompts, 4, 8, seeded()) == Sampler(run.model, CPU, "bfloat16").draw(prompts, 4, 8, seeded())
    assert sampler.draw(prompts, 4, 8, seeded()) != before


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
def test_smollm2_answers_as_scored(smollm2):
    """Three queries share a key there; the LoRA is laid into a copy."""
    model = load_model(ModelConfig(smollm2, ADAPTERS["lora"]), [prompt_task(0)], 0)
    with torch.no_grad():
        for name, p in model.adapters.trainable().items():
            if "lora_B" in name:
                p.normal_(std=0.02, generator=seeded(1))
    prompts = model.objective.prompt_ids(["What is the capital of France?", "Count: one, two,"], 6)
    drawn = Sampler(model, CPU, "float32").draw(prompts, 2, 6, seeded(), temperature=0.0)
    with torch.no_grad(), model.evaluating():
        wanted = generate_greedily(model.network, model.objective, prompts, 6, CPU)
    assert [model.objective.answer_of(first) for first, _ in drawn] == wanted
    assert all(first == second for first, second in drawn)
