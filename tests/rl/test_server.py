"""Responses drawn by a vLLM server: against a stand-in on this machine that speaks its endpoints."""

import socket

import pytest
import torch

from everlearn.errors import ConfigError, TrainingError
from everlearn.rl.sampler import Sampler
from everlearn.rl.server import ServerSampler, command
from support.policy import letters_task, policy_run
from support.runs import start_lora_away_from_zero
from support.vllm import serving

PROMPTS = [[1, 60, 70], [1, 61, 62, 63, 64], [1, 65]]


@pytest.fixture
def server(llama):
    with serving(llama) as stand_in:
        yield stand_in


def make_run(llama, adapter="lora", **options):
    run = policy_run(llama, letters_task(), adapter, **options)
    if adapter == "lora":
        start_lora_away_from_zero(run)
    else:
        with torch.no_grad():
            for p in run.model.adapters.trainable().values():
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return run


def sampler_of(run, url, folder, seconds=20.0, tensor_parallel=1):
    return ServerSampler(run, url, tensor_parallel, seconds, str(folder))


def draw(sampler, n=1, temperature=0.0, seed=0, **options):
    return sampler.draw(PROMPTS, n, 6, torch.Generator().manual_seed(seed), temperature, **options)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_it_answers_by_the_weights_of_the_policy(adapter, llama, server, tmp_path):
    run = make_run(llama, adapter)
    base = Sampler(policy_run(llama, letters_task()).model, run.accelerator.device, "own")
    ours, sampler = Sampler(run.model, run.accelerator.device, "own"), sampler_of(run, server.url, tmp_path)
    sampler.refresh()
    before = draw(ours)
    assert draw(sampler) == before != draw(base)
    with torch.no_grad():
        for p in run.model.adapters.trainable().values():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel() + 1)))
    assert draw(sampler) == before
    ours.refresh()
    sampler.refresh()
    assert draw(sampler) == draw(ours) != before
    assert list(tmp_path.iterdir()) == []  # nothing is left of the weights


def test_the_same_numbers_draw_the_same_answers_and_each_prompt_has_its_own(llama, server, tmp_path):
    sampler = sampler_of(make_run(llama), server.url, tmp_path)
    sampler.refresh()
    first = draw(sampler, n=4, temperature=1.0)
    assert first == draw(sampler, n=4, temperature=1.0) != draw(sampler, n=4, temperature=1.0, seed=1)
    assert draw(sampler, n=4, temperature=1.0, own=slice(1, None, 2)) == first[1::2]
    assert all(len(set(map(tuple, responses))) > 1 for responses in first)
    seeds = [content["seed"] for path, content in server.asked if path == "/v1/completions"][1:4]
    assert len(set(seeds)) == 3


def test_answers_end_with_what_ends_them(llama, server, tmp_path):
    run = make_run(llama)
    run.model.objective.stop_ids = list(range(130))
    sampler = sampler_of(run, server.url, tmp_path)
    sampler.refresh()
    answers = [ids for responses in draw(sampler, n=8, temperature=1.0) for ids in responses]
    assert any(len(ids) < 6 for ids in answers)
    assert all(run.model.objective.end_of(ids) + 1 >= len(ids) for ids in answers)


BROKEN = {
    "fewer answers": ("/v1/completions", {"choices": []}, r"it doesn't answer with 1 x at most 6 token ids"),
    "no choices": ("/v1/completions", {"error": "none"}, r"it doesn.t tell the log-probabilities"),
    "no JSON": ("/v1/models", b"<html>", r"/v1/models is answered by what is no JSON. Got b'<html>'"),
    "another shape": ("/v1/models", {"data": []}, r"it doesn't speak as vLLM does"),
    "a refusal": ("/collective_rpc", 500, r"/collective_rpc is answered by 500. Got '500'. See its log"),
    "no such endpoint": ("/get_world_size", 404, r"answered by 404.*Without VLLM_SERVER_DEV_MODE=1 it has no such"),
    "slow": ("/reset_prefix_cache", 3.0, r"/reset_prefix_cache isn't answered in time. Got '1 s'"),
    "busy": ("/reset_prefix_cache", {"success": False}, r"it keeps what it computed by earlier weights"),
    "more GPUs": ("/get_world_size", {"world_size": 4}, r"another number of GPUs than 1. Got 4"),
    "another tokenizer": ("/tokenize", {"tokens": [5]}, r"its tokenizer is another. Got \[5\]"),
    "another model": (
        "/v1/models", {"data": [{"id": "x", "root": "other/model", "max_model_len": 9}]}, r"serves another model than"
    ),
}  # fmt: skip


def draw_once(llama, server, folder, path, answer):
    """Draw from a server that breaks in one way from its start on, or, where it answers prompts, after its check."""
    if path != "/v1/completions":
        server.broken[path] = answer
    sampler = sampler_of(make_run(llama), server.url, folder, seconds=1.0)
    sampler.refresh()
    server.broken[path] = answer
    sampler.probed = "choices" in answer
    draw(sampler)


@pytest.mark.parametrize("name", BROKEN)
def test_what_it_does_wrong_is_one_error_with_the_command_that_starts_it(name, llama, server, tmp_path):
    path, answer, message = BROKEN[name]
    with pytest.raises(TrainingError, match=message) as raised:
        draw_once(llama, server, tmp_path, path, answer)
    assert f"vllm serve {llama} --port {server.url.rpartition(':')[2]} --tensor-parallel-size 1" in str(raised.value)
    assert "everlearn resume" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


STRANGE = {
    "too long": lambda choice: choice["token_ids"].append(5),
    "empty": lambda choice: choice["token_ids"].clear(),
    "beyond the vocabulary": lambda choice: choice["token_ids"].__setitem__(0, 10**6),
    "no numbers": lambda choice: choice["token_ids"].__setitem__(0, "a"),
    "to another prompt": lambda choice: choice.__setitem__("prompt_token_ids", [9]),
    "without ids": lambda choice: choice.pop("token_ids"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_broken_answers_are_refused(name, llama, server, tmp_path):
    sampler = sampler_of(make_run(llama), server.url, tmp_path)
    sampler.refresh()
    sampler.probed = True
    choices = server.choices

    def strange(content):
        found = choices({**content, "stop_token_ids": []})  # all are as long as they may be
        STRANGE[name](found[1])
        return found

    server.choices = strange
    with pytest.raises(TrainingError, match="it doesn't answer with 2 x at most 6 token ids below"):
        draw(sampler, n=2)


def test_weights_that_were_not_taken_over_are_found_out(llama, server, tmp_path):
    run = make_run(llama)
    sampler = sampler_of(run, server.url, tmp_path)
    sampler.refresh()
    with torch.no_grad():
        for p in server.network.parameters():
            p.mul_(3.0)
    with pytest.raises(TrainingError, match="it answers by other weights than it was given"):
        draw(sampler)


def test_a_context_that_is_too_short_is_told_before_anything_is_drawn(llama, tmp_path):
    with serving(llama, max_length=8) as server:
        sampler = sampler_of(make_run(llama), server.url, tmp_path)
        sampler.refresh()
        with pytest.raises(
            TrainingError, match=r"a prompt of 3 tokens and 6 for its answer don't fit. .*max-model-len"
        ):
            draw(sampler)


def test_a_server_that_is_away_is_told_with_its_command(llama, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(TrainingError, match=r"it is away \(.*refused\).*VLLM_SERVER_DEV_MODE=1 vllm serve"):
        sampler_of(make_run(llama), url, tmp_path)


def test_what_cannot_be_laid_into_the_weights_is_refused(llama, server):
    run = make_run(llama)
    with pytest.raises(ConfigError, match=r"learner.vllm_folder: a run without a folder needs one"):
        ServerSampler(run, server.url, 1, 1.0)
    run.model.network.add_module("gate", torch.nn.Linear(2, 2))
    for layer in run.model.network.modules():
        if hasattr(layer, "lora_A"):
            layer.use_dora["default"] = True
    with pytest.raises(ConfigError, match=r"learner.vllm: what is added to the model can't be laid into its weights"):
        ServerSampler(run, server.url, 1, 1.0, "x")


def test_the_command_names_port_and_gpus():
    assert command("a model", "http://node-3:8123", 2) == (
        "VLLM_SERVER_DEV_MODE=1 vllm serve 'a model' --port 8123 --tensor-parallel-size 2 --generation-config vllm"
    )
