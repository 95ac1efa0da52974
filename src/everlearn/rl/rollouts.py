"""Responses laid out for a forward pass: a prompt's ones side by side behind it, in one row that keeps them apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from everlearn.models.adapters import language_model
from everlearn.models.causal import CausalObjective
from everlearn.models.dtypes import TOLERANCE
from everlearn.models.load import Model
from everlearn.models.objectives import Batch
from everlearn.models.positions import parameters_of
from everlearn.models.prompts import prompts_of
from everlearn.types import IGNORED, Row, Task

MASKS = {"sdpa": True, "eager": False}  # attention that takes such a mask -> whether it is one of booleans
REACHES = ("sliding_window", "attention_chunk_size")  # what a model's settings call how far its attention reaches


@dataclass
class Answered:
    """A prompt and the different responses drawn to it.

    Attributes:
        address: (group of the mixture, row within it).
        prompt: token ids. responses: token ids of each different response.
        counts: how often each was drawn. rewards: what each is worth.
    """

    task: Task
    row: Row
    address: tuple[int, int]
    prompt: list[int]
    responses: list[list[int]]
    counts: list[int]
    texts: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)

    @classmethod
    def by(
        cls,
        drawn: Sequence[list[int]],
        objective: CausalObjective,
        task: Task,
        row: Row,
        address: tuple[int, int],
        prompt: list[int],
    ) -> "Answered":
        """Return a prompt with the responses drawn to it, equal ones once, and their texts."""
        different, counts = distinct(drawn)
        return cls(task, row, address, prompt, different, counts, [objective.answer_of(ids) for ids in different])

    @property
    def n_drawn_tokens(self) -> int:
        """How many tokens were drawn, those of equal responses each time."""
        return sum(count * len(ids) for count, ids in zip(self.counts, self.responses, strict=True))

    @property
    def n_tokens(self) -> int:
        """How long it is laid out."""
        return len(self.prompt) - 1 + sum(1 + len(response) for response in self.responses)

    def of_tokens(self, values: Sequence[float]) -> list[float]:
        """Return each response's value once for each of its tokens."""
        return [value for value, ids in zip(values, self.responses, strict=True) for _ in ids]


def distinct(responses: Sequence[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Return the different responses in the order in which they first came, and how often each did."""
    counts: dict[tuple[int, ...], int] = {}
    for response in responses:
        counts[tuple(response)] = counts.get(tuple(response), 0) + 1
    return [list(response) for response in counts], list(counts.values())


def n_cut_off(objective: CausalObjective, drawn: Sequence[Sequence[list[int]]]) -> int:
    """Return how many of the responses to some prompts have no end."""
    return sum(objective.end_of(ids) == len(ids) for responses in drawn for ids in responses)


def lay_out(model: Model, answered: Sequence[Answered], *, packed: bool) -> Batch:
    """Return the batch in which the responses' tokens are the targets, in the order of `answered` and its responses.

    Packed, a prompt and its responses are one row: the prompt without its last token, then, for each response, that
    token and the response, whose positions go on from the prompt's. Each reads the prompt and itself alone, by a mask
    [n_rows, 1, length, length]. Otherwise each response is a row behind its own copy of the prompt.
    """
    if not packed:
        rows = [
            {"input_ids": one.prompt + ids, "labels": [IGNORED] * len(one.prompt) + ids}
            for one in answered
            for ids in one.responses
        ]
        return model.objective.collate(rows)
    size = max(one.n_tokens for one in answered)
    ids = torch.full((len(answered), size), model.objective.pad_id)
    labels, positions = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    segments = torch.full_like(ids, -1)  # 0: the prompt; 1, 2, ...: the responses
    for i, one in enumerate(answered):
        begin = len(one.prompt) - 1
        ids[i, :begin] = torch.tensor(one.prompt[:-1], dtype=torch.long)
        positions[i, :begin], segments[i, :begin] = torch.arange(begin), 0
        for number, response in enumerate(one.responses, 1):
            end = begin + 1 + len(response)
            ids[i, begin:end] = torch.tensor([one.prompt[-1], *response])
            labels[i, begin + 1 : end] = torch.tensor(response, dtype=torch.long)
            positions[i, begin:end] = torch.arange(len(one.prompt) - 1, len(one.prompt) + len(response))
            segments[i, begin:end] = number
            begin = end
    reads = (segments[:, :, None] == segments[:, None, :]) | (segments[:, None, :] == 0)
    reads &= torch.ones(size, size, dtype=torch.bool).tril()
    reads |= torch.eye(size, dtype=torch.bool)  # padding reads itself
    mask = reads[:, None]
    if not MASKS[language_model(model.network).config._attn_implementation]:
        mask = torch.zeros(mask.shape).masked_fill_(~mask, torch.finfo(torch.float32).min)
    return {"input_ids": ids, "labels": labels, "position_ids": positions, "attention_mask": mask}


def cut(answered: Sequence[Answered], max_tokens: int, *, packed: bool) -> list[list[Answered]]:
    """Return the prompts in parts that laid out have at most `max_tokens` with padding; a longer one is alone."""
    parts: list[list[Answered]] = []
    longest = n_rows = 0
    for one in sorted(answered, key=lambda one: one.n_tokens):
        size = one.n_tokens if packed else len(one.prompt) + max(map(len, one.responses))
        rows = 1 if packed else len(one.responses)
        if not parts or (n_rows + rows) * max(longest, size) > max_tokens:
            parts.append([])
            longest = n_rows = 0
        parts[-1].append(one)
        longest, n_rows = max(longest, size), n_rows + rows
    return parts


def can_be_packed(model: Model) -> bool:
    """Tell whether the model keeps responses that share a row apart: tried with two, in evaluation mode.

    Cost: two passes over a few tokens.
    """
    network = language_model(model.network)
    fits = network.config._attn_implementation in MASKS and "position_ids" in parameters_of(type(network))
    settings = network.config.get_text_config().to_dict()
    reach = min((settings[name] for name in REACHES if settings.get(name) is not None), default=math.inf)
    # the mask lets an answer read all of its prompt, however far away that is
    if not fits or prompts_of(model.network) is not None or reach < model.objective.max_length:
        return False
    generator = torch.Generator().manual_seed(0)
    n_words = network.get_input_embeddings().num_embeddings
    first, second, third = (torch.randint(n_words, (n,), generator=generator).tolist() for n in (5, 4, 7))
    tried = [Answered(None, {}, (0, 0), first, [second, third], [1, 1])]
    device = next(network.parameters()).device
    with torch.no_grad(), model.evaluating():
        found = []
        for packed in (True, False):
            batch = {name: tensor.to(device) for name, tensor in lay_out(model, tried, packed=packed).items()}
            found.append(model.objective.forward(model.network, batch).logits.float())
    scale = max(1.0, found[1].abs().max().item())
    return (found[0] - found[1]).abs().max().item() <= TOLERANCE.get(next(network.parameters()).dtype, 1e-3) * scale
