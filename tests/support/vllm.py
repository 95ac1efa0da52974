"""A stand-in for a vLLM server, on a port of this machine: its endpoints, answered by a tiny model on the CPU."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass
class StandIn:
    """What a server is asked, and how it answers.

    Attributes:
        asked: the paths that were asked for, with what was sent. broken: {path: what it answers in place of the truth};
            a number is a status, bytes are sent as they are, a float is slept for.
    """

    folder: Path
    n_gpus: int = 1
    max_length: int = 64
    asked: list[tuple[str, Any]] = field(default_factory=list)
    broken: dict[str, Any] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        self.network = AutoModelForCausalLM.from_pretrained(self.folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.lock = threading.Lock()

    def answer(self, path: str, content: Any) -> Any:
        """Return what a path is answered by."""
        if path == "/v1/models":
            return {"data": [{"id": "policy", "root": str(self.folder), "max_model_len": self.max_length}]}
        if path == "/get_world_size":
            return {"world_size": self.n_gpus}
        if path == "/tokenize":
            return {"tokens": self.tokenizer(content["prompt"], add_special_tokens=False)["input_ids"]}
        if path == "/collective_rpc":
            return self._reload(**content)
        if path == "/reset_prefix_cache":
            return {"success": True}
        return {"choices": self.choices(content)}

    def _reload(self, method: str, kwargs: dict[str, str]) -> dict[str, Any]:
        assert method == "reload_weights"
        weights = load_file(Path(kwargs["weights_path"]) / "model.safetensors")
        missing, unknown = self.network.load_state_dict(weights, strict=False)
        assert not unknown, unknown
        assert set(missing) <= set(self.network._tied_weights_keys or ()), missing
        return {"results": [None]}

    @torch.no_grad()
    def choices(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the answers to a prompt, drawn side by side from generators of their own."""
        assert content["model"] == "policy"
        assert content["ignore_eos"]
        assert (content["top_p"], content["top_k"], content["min_p"], content["repetition_penalty"]) == (1, 0, 0, 1)
        generators = [torch.Generator().manual_seed(content["seed"] + i) for i in range(content.get("n", 1))]
        ids, log_p = torch.tensor([content["prompt"]] * len(generators)), []
        for _ in range(content["max_tokens"]):
            logits = self.network(input_ids=ids).logits[:, -1].float() / (content["temperature"] or 1.0)
            p = logits.softmax(-1)
            drawn = [torch.multinomial(row, 1, generator=g) for row, g in zip(p, generators, strict=True)]
            tokens = torch.stack(drawn) if content["temperature"] else p.argmax(-1, keepdim=True)
            ids = torch.cat([ids, tokens], 1)
            log_p.append(p.log().gather(1, tokens))
        found = []
        for i, answer in enumerate(ids[:, len(content["prompt"]) :].tolist()):
            ends = [place for place, token in enumerate(answer, 1) if token in content["stop_token_ids"]]
            n = min([*ends, len(answer)])
            told = {"token_logprobs": torch.cat(log_p, 1)[i, :n].tolist()} if "logprobs" in content else None
            found.append({"token_ids": answer[:n], "prompt_token_ids": content["prompt"], "logprobs": told})
        return found


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[StandIn]:
    """Let a stand-in serve a model's folder until the block ends."""
    stand_in = StandIn(folder, **options)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            content = json.loads(self.rfile.read(size)) if size else None
            answer = stand_in.broken.get(self.path)
            with stand_in.lock:
                stand_in.asked.append((self.path, content))
                if answer is None:
                    answer = stand_in.answer(self.path, content)
            if isinstance(answer, float):
                time.sleep(answer)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(answer if isinstance(answer, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
