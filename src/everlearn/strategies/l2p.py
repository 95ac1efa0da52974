"""Learning to prompt: a pool of soft prompts, of which each input picks those whose keys are nearest to it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from everlearn.errors import ConfigError, check_number, describe
from everlearn.models.adapters import Adapters
from everlearn.models.objectives import IGNORED, Batch
from everlearn.models.prompts import (
    Prompts,
    check_room,
    freeze_backbone,
    language_model,
    own_prompts,
    place_of,
    prompts_of,
)
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import ADDS_LAYERS, Strategy
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_FROZEN = "l2p freezes the LoRA, which then has nothing to learn"
_NO_WEIGHTS = "l2p freezes the model's weights, so that there is nothing to share out or to freeze"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def choose(query: torch.Tensor, keys: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `n` keys nearest to each query by cosine, and the sum of their distances, sum_i 1 - cos(query, key_i).

    Args:
        query: [batch, width]; keys: [n_keys, width].

    Returns:
        Indices [batch, n], nearest first, and distances [batch].
    """
    nearest = (F.normalize(query, dim=-1) @ F.normalize(keys, dim=-1).T).topk(n, dim=-1)
    return nearest.indices, (1 - nearest.values).sum(-1)


class PromptPool(Prompts):
    """Prompts `values` [size, length, width] with a key `keys` [size, width] each; the operation fills them in."""

    def __init__(self, network: PreTrainedModel, place: int, n_chosen: int):
        super().__init__(network, place)
        self.n_chosen = n_chosen
        self.asked: torch.Tensor | None = None  # [batch, sequence], the tokens of the question in the batch to come
        self.last: tuple[torch.Tensor, torch.Tensor] | None = None  # token ids of the last pass, and its queries

    @property
    def n_vectors(self) -> int:
        return self.n_chosen * self.values.shape[1]

    def see(self, batch: Batch) -> None:
        """Take note of which tokens are the question: the answer must not choose its own prompts."""
        self.asked = batch["labels"] == IGNORED

    def vectors(self, inputs: dict[str, Any]) -> torch.Tensor:
        query = self.query(inputs)
        self.last = (inputs["input_ids"], query)
        indices, _ = choose(query, self.keys.detach(), self.n_chosen)
        return self.values[indices].flatten(1, 2)

    @torch.no_grad()
    def query(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Return the mean of the bare model's last hidden states over the question's tokens [batch, width]."""
        backbone, asked = self.backbone[0], self.asked
        self.asked = None
        flags = {module: module.training for module in backbone.modules()}
        backbone.eval()
        given = {name: inputs[name] for name in _INPUTS if inputs.get(name) is not None}
        hidden = backbone.forward(**given).last_hidden_state.float()  # not a call, which would put prompts in
        for module, flag in flags.items():
            module.training = flag
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(inputs["input_ids"]) if mask is None else mask
        weights = (mask.bool() & asked if asked is not None else mask).to(hidden.dtype)[..., None]
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


@register("operation", "prompt_pool")
def prompt_pool(adapters: Adapters, *, size: int, length: int, n_chosen: int, place: int, seed: int) -> None:
    """Give the model a pool: keys uniform in [-1, 1], prompts with the embeddings of random tokens."""
    generator = generator_for(seed, "prompt pool")
    pool = PromptPool(language_model(adapters.network), place, n_chosen)
    words = pool.like_words(size * length, generator)
    pool.values = nn.Parameter(words.view(size, length, -1))
    pool.keys = nn.Parameter((2 * torch.rand(size, words.shape[1], generator=generator) - 1).to(words.device))


@register("strategy", "l2p")
@dataclass
class L2P(Strategy):
    """Put before each input the prompts whose keys k are nearest to it; add strength * sum_i (1 - cos(q, k_i)).

    The query q is the frozen model's own view of the input without prompts: the mean of its last hidden states, over
    the question alone where an answer follows. Keys, prompts and heads are trained, model and LoRA frozen. No task
    needs to be named when the model is used.

    Args:
        size: prompts in the pool.
        length: vectors in a prompt.
        n_chosen: prompts that an input gets.
        strength: weight of the term that pulls the chosen keys towards their queries (lambda of the paper).

    Cost: one forward pass of the bare model more per batch, and n_chosen * length tokens more in the other; keeps
    size * (length + 1) * width numbers.

    Source: Wang et al. 2022, arXiv 2112.08654, eq. 3 and 5. Departs: the query is a mean of hidden states, not that of
    [CLS]; a class is read where the architecture reads it, not from the prompts' outputs; rows weigh in the pull by
    their number of targets; no penalty on prompts that are chosen often (optional there).
    Reproduces: not verified; our results stand in METHODS.md.
    """

    size: int = 10
    length: int = 5
    n_chosen: int = 4
    strength: float = 0.5

    conflicts: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("inclora", "olora", "inflora", "aflora"), _FROZEN),
        **dict.fromkeys(("packnet", "pnn", "hat", "separate", "frozen", "seq_star", "osf"), _NO_WEIGHTS),
    }
    unsuited: ClassVar[dict[str, str]] = {
        "trainer": ADDS_LAYERS,
        "tensor": "soft prompts stand among the tokens of a language model",
        "prompt": NO_LAYERS,
        "preferences": "its prompts are chosen by a row's question, or begin as its words, and pairs have two texts",
        "packing": "its prompts stand before a sequence once, not before each of its rows",
        "soft_prompt": "there is room for one set of prompts; leave out model.adapter's",
    }

    def __post_init__(self) -> None:
        check_number("l2p.size", self.size, low=1)
        check_number("l2p.length", self.length, low=1)
        check_number("l2p.n_chosen", self.n_chosen, low=1, high=self.size)
        check_number("l2p.strength", self.strength, low=0)

    def adapt_model(self, run: "Run", task: Task) -> None:
        if task.kind == "text":
            way_out = "Use progressive_prompts, or tasks with prompt and completion"
            what = "a text would choose prompts by what is to be predicted"
            raise ConfigError(describe(f"strategy 'l2p', task {task.name!r}", what, task.kind, way_out))
        check_room(run.model, task, self.n_chosen * self.length)
        adapters = run.model.adapters
        if own_prompts(run.model.network, PromptPool) is None:
            sizes = {"size": self.size, "length": self.length, "n_chosen": self.n_chosen}
            adapters.do("prompt_pool", **sizes, place=place_of(run.model.kind), seed=run.seed)
        run.model.show_batches()
        freeze_backbone(adapters)

    def penalty(self, step: Step) -> torch.Tensor | None:
        if self.strength == 0:
            return None
        pool: PromptPool = prompts_of(step.run.model.network)
        ids, query = pool.last
        if ids is not step.batch["input_ids"]:  # another method has used the model since
            if step.run.model.kind == "causal":
                pool.see(step.batch)
            query = pool.query(step.batch)
        _, distances = choose(query, pool.keys, self.n_chosen)
        return self.strength * distances[step.outputs.owners].mean()
