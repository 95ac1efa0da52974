"""Responses drawn by a vLLM server, which is given the policy's weights before each drawing.

The server is vLLM's own, in an environment of its own (`command` says how it is started). It is spoken to over HTTP
alone. Weights go through a folder that both see: a safetensors file of the policy without adapters, which the
server's workers read by their `reload_weights`.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch

from everlearn.errors import ConfigError, TrainingError, describe
from everlearn.models.adapters import language_model
from everlearn.models.quiet import quiet
from everlearn.rl.sampler import can_be_copied, plain_weights
from everlearn.seeds import seed_for
from everlearn.state import writing

if TYPE_CHECKING:
    from everlearn.way import Run

AT_ONCE = 64  # requests on their way to the server
PROBED = 16  # tokens whose log-probabilities are compared with the policy's own
APART = 0.3  # nats a token that these may differ on average: bfloat16 and other kernels move them by some hundredths
PROBE = "Numbers 3 5 9: 17 = <answer>3 + 5 + 9</answer>"
WHERE = "learner.vllm"


def command(model: str, url: str, tensor_parallel: int) -> str:
    """Return the command that starts a server, in an environment with vLLM."""
    port = urlsplit(url).port or 8000
    return (
        f"VLLM_SERVER_DEV_MODE=1 vllm serve {quote(model)} --port {port} --tensor-parallel-size {tensor_parallel} "
        "--generation-config vllm"
    )


class ServerSampler:
    """Draws responses from a run's policy as it was when `refresh` was called last, by a vLLM server.

    The first process speaks with the server, for all. What fails there is raised on all of them.

    Args:
        url: of the server. tensor_parallel: over how many GPUs it is to be spread, which is checked.
        seconds: how long it may leave a request unanswered.
        folder: where weights are laid down for it, seen by both under this path; by default the run's own folder.

    Raises:
        ConfigError: if the policy is no plain language model with LoRAs, or there is no folder.
        TrainingError: if the server is away, or serves another model, tokenizer or number of GPUs.

    Cost: a refresh writes all weights, in bfloat16 where the policy computes in it, and the server reads them.
    """

    def __init__(self, run: "Run", url: str, tensor_parallel: int, seconds: float, folder: str | None = None):
        self.run, self.url, self.seconds = run, url.rstrip("/"), seconds
        network = language_model(run.model.network)
        self.name = network.config.name_or_path
        self.tensor_parallel = tensor_parallel
        self.n_words = network.get_input_embeddings().num_embeddings
        if not can_be_copied(run.model.network):
            way_out = "Leave it out; or train LoRAs or all weights, without methods that add layers"
            raise ConfigError(
                describe(WHERE, "what is added to the model can't be laid into its weights", url, way_out)
            )
        if folder is None and run.saving.folder is None:
            raise ConfigError(describe("learner.vllm_folder", "a run without a folder needs one", folder, "Name one"))
        self.folder = Path(folder) if folder is not None else run.saving.folder
        self.served, self.max_length = run.processes.from_first(self._check)
        self.probed = False

    def refresh(self) -> None:
        """Hand over the weights as they are now."""
        dtype = torch.bfloat16 if self.run.accelerator.mixed_precision == "bf16" else None
        processes = self.run.processes
        taking_part = processes.rank == 0 or processes.sharded
        weights = plain_weights(self.run.model.network, dtype) if taking_part else ()
        kept = {name: weight for name, weight in weights if processes.rank == 0}
        processes.from_first(lambda: self._hand_over(kept))

    def draw(
        self,
        prompts: Sequence[list[int]],
        n: int,
        max_new_tokens: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        own: slice = slice(None),
    ) -> list[list[list[int]]]:
        """Return n responses to each prompt, as `everlearn.rl.sampler.Sampler.draw` does; all processes call it alike.

        The same numbers, weights and server give the same responses as far as its kernels do.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        if not self.probed and len(prompts):
            self._probe(min(prompts, key=len))
        asked = [
            # half of 63 bits leaves room for the n seeds that vLLM makes of one
            {
                **self._options(prompt, max_new_tokens),
                "n": n,
                "temperature": temperature,
                "seed": seed_for(seed, i) >> 1,
            }
            for i, prompt in enumerate(prompts)
        ]
        return self.run.processes.from_first(lambda: self._answers(asked))[own]

    def _answers(self, asked: list[dict[str, Any]]) -> list[list[list[int]]]:
        for each in asked:
            if len(each["prompt"]) + each["max_tokens"] > self.max_length:
                what = f"a prompt of {len(each['prompt'])} tokens and {each['max_tokens']} for its answer don't fit"
                raise self._error(what, {"max_model_len": self.max_length}, "Start it with a larger --max-model-len")
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            return list(pool.map(self._answer, asked))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error, those under way are not waited for

    def _answer(self, asked: dict[str, Any]) -> list[list[int]]:
        said = self._ask("/v1/completions", asked)
        try:
            responses = [choice["token_ids"] for choice in said["choices"]]
            echoed = {tuple(choice["prompt_token_ids"] or asked["prompt"]) for choice in said["choices"]}
            whole = len(responses) == asked["n"] and echoed == {tuple(asked["prompt"])}
            whole &= all(0 < len(ids) <= asked["max_tokens"] for ids in responses)
            whole &= all(type(i) is int and 0 <= i < self.n_words for ids in responses for i in ids)
        except (KeyError, TypeError):
            whole = False
        if not whole:
            what = f"it doesn't answer with {asked['n']} x at most {asked['max_tokens']} token ids below {self.n_words}"
            raise self._error(what, said, "It may be an older vLLM, or serve another model")
        return responses

    def _check(self) -> tuple[str, int]:
        """Return what the server calls the model, and its context, once it is known to be the right one."""
        try:
            card = self._ask("/v1/models")["data"][0]
            served, root, max_length = card["id"], card["root"] or card["id"], int(card["max_model_len"])
            n_gpus = self._ask("/get_world_size")["world_size"]
            tokens = self._ask("/tokenize", {"model": served, "prompt": PROBE, "add_special_tokens": False})["tokens"]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._error(f"it doesn't speak as vLLM does ({error!r})", self.url, "Start vLLM") from error
        if Path(root).name != Path(self.name).name:
            raise self._error(f"it serves another model than {self.name}", root, "Start it with the recipe's")
        if n_gpus != self.tensor_parallel:
            way_out = "Start it as the recipe says, or set learner.vllm_tensor_parallel"
            raise self._error(f"it is spread over another number of GPUs than {self.tensor_parallel}", n_gpus, way_out)
        if tokens != self.run.model.tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
            raise self._error("its tokenizer is another", tokens, "Start it with the recipe's model")
        return served, max_length

    def _hand_over(self, weights: dict[str, torch.Tensor]) -> None:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            aside = Path(
                tempfile.mkdtemp(prefix="weights-", dir=self.folder)
            ).absolute()  # read once: never a stale one
        try:
            with writing(aside), quiet():
                aside.chmod(0o755)  # the server may be another user's
                language_model(self.run.model.network).save_pretrained(aside, state_dict=weights)
            self._ask("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(aside)}})
            cleared = self._ask("/reset_prefix_cache", {})
            if cleared is not None and not cleared.get("success", True):
                raise self._error("it keeps what it computed by earlier weights", cleared, "Let nobody else use it")
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _probe(self, prompt: list[int]) -> None:
        """Compare the server's log-probabilities of an answer with the policy's own: were the weights taken over?"""
        n = min(PROBED, self.max_length - len(prompt))
        asked = {**self._options(prompt, n), "temperature": 1.0, "seed": 0, "logprobs": 0}
        said = self.run.processes.from_first(lambda: self._ask("/v1/completions", asked))
        try:
            choice = said["choices"][0]
            answer, theirs = choice["token_ids"], torch.tensor(choice["logprobs"]["token_logprobs"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            what = f"it doesn't tell the log-probabilities of its tokens ({error!r})"
            raise self._error(what, said, "Start vLLM") from error
        ids = torch.tensor([prompt + answer], device=self.run.accelerator.device)
        with torch.no_grad(), self.run.model.evaluating(), self.run.accelerator.autocast():
            logits = self.run.model.network(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        ours = logits.float().log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0].cpu()
        apart = (ours - theirs).abs().mean().item()
        if not apart <= APART:
            way_out = "Let nobody else use it, and see in its log whether reload_weights went well"
            raise self._error(
                "it answers by other weights than it was given", f"{apart:.2f} nats a token apart", way_out
            )
        self.probed = True

    def _options(self, prompt: list[int], n: int) -> dict[str, Any]:
        """Return what every question says: the policy's own distribution, whatever the model's files ask for."""
        return {
            "model": self.served, "prompt": prompt, "max_tokens": n, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
            "repetition_penalty": 1.0, "ignore_eos": True, "stop_token_ids": self.run.model.objective.stop_ids,
            "return_token_ids": True,
        }  # fmt: skip

    def _ask(self, path: str, content: dict[str, Any] | None = None) -> Any:
        """Return the JSON that the server answers with, None for an empty answer."""
        body = None if content is None else json.dumps(content).encode()
        request = Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=self.seconds) as answer:
                said = answer.read()
            return json.loads(said) if said else None
        except HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            dev = " Without VLLM_SERVER_DEV_MODE=1 it has no such endpoint." if error.code == 404 else ""
            raise self._error(f"{path} is answered by {error.code}", said, f"See its log.{dev}") from error
        except ValueError as error:
            raise self._error(f"{path} is answered by what is no JSON", said[:200], "Start vLLM") from error
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            if isinstance(reason, TimeoutError):
                way_out = "Set learner.vllm_seconds higher, or see what holds it up"
                raise self._error(f"{path} isn't answered in time", f"{self.seconds:g} s", way_out) from error
            raise self._error(f"it is away ({reason})", self.url, "Start it") from error

    def _error(self, what: str, got: object, way_out: str) -> TrainingError:
        started = command(self.name, self.url, self.tensor_parallel)
        way_out = f"{way_out.rstrip('.')}. It is started by: {started}"
        return TrainingError(describe(f"{WHERE} {self.url}", what, got, f"{way_out}. Then go on with everlearn resume"))
