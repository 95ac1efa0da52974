"""Documents to batches: encoded, sorted by length in windows, padded on the right, each token with its weight."""

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from everlearn.models.pocket.corpus import OPENING, document
from everlearn.models.pocket.recipe import PocketRecipe
from everlearn.seeds import seed_for


@dataclass(frozen=True)
class Batch:
    """Token ids [rows, tokens], the loss weight of predicting each token [rows, tokens] (0: padding), real tokens."""

    ids: Tensor
    weights: Tensor
    n_tokens: int


def encode(
    tokenizer: PreTrainedTokenizerFast, documents: list, recipe: PocketRecipe, progress: float = 1.0
) -> list[tuple[list, list]]:
    """Return (ids, weights) of each document: <bos>, prompts and answers in turn, <eos>; prompts weigh less.

    While training opens, answers alone count: what can't be foreseen in a prompt delays looking things up.
    """
    texts = [text for pairs in documents for pair in pairs for text in pair]
    pieces = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    opened = progress >= OPENING
    prompt_weight = recipe.prompt_weight if opened else 0.0
    rows = []
    for pairs in documents:
        ids, weights = [tokenizer.bos_token_id], [0.0]
        for _ in pairs:
            prompt, answer = next(pieces), next(pieces)
            ids += prompt + answer
            weights += [prompt_weight] * len(prompt) + [1.0] * len(answer)
        ids.append(tokenizer.eos_token_id)
        weights.append(float(opened))
        rows.append((ids[: recipe.max_tokens], weights[: recipe.max_tokens]))
    return rows


def window(tokenizer: PreTrainedTokenizerFast, recipe: PocketRecipe, number: int, progress: float) -> list[Batch]:
    """Return the batches of window `number`: its documents by length, no document beside another in a row.

    A document alone in its row sees only itself, and rows of like length waste little padding; sorting happens inside a
    window, and the order of the window's batches is drawn from (seed, number), so that resume finds the same place.
    """
    size = recipe.opening_documents if progress < OPENING else recipe.window_documents
    documents = [document(recipe.seed, number * recipe.window_documents + i, progress) for i in range(size)]
    rows = sorted(encode(tokenizer, documents, recipe, progress), key=lambda row: len(row[0]))
    groups, group = [], []
    for row in rows:
        if group and (len(group) + 1) * len(row[0]) > recipe.batch_tokens:
            groups.append(group)
            group = []
        group.append(row)
    groups.append(group)
    Random(seed_for("pocket", recipe.seed, "batches", number)).shuffle(groups)
    return [_pad(group, tokenizer.pad_token_id) for group in groups]


class Windows:
    """Draws windows when they are taken, or with a pool in other processes once they are asked for."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, recipe: PocketRecipe, pool: ProcessPoolExecutor | None):
        self._drawn_from, self._pool = (tokenizer, recipe), pool
        self._asked: dict[int, Future] = {}

    def ask(self, number: int, progress: float) -> None:
        """Let a window be drawn ahead, where there is a pool."""
        if self._pool is not None and number not in self._asked:
            self._asked[number] = self._pool.submit(_arrays, *self._drawn_from, number, progress)

    def take(self, number: int, progress: float) -> list[Batch]:
        """Return the batches of a window."""
        self.ask(number, progress)
        if self._pool is None:
            return window(*self._drawn_from, number, progress)
        arrays = self._asked.pop(number).result()
        return [Batch(torch.from_numpy(ids), torch.from_numpy(weights), n) for ids, weights, n in arrays]


@contextmanager
def opened_windows(tokenizer: PreTrainedTokenizerFast, recipe: PocketRecipe, n_processes: int) -> Iterator[Windows]:
    """Yield what draws a run's windows, in this process (0) or in so many others."""
    if not n_processes:
        yield Windows(tokenizer, recipe, None)
        return
    pool = ProcessPoolExecutor(n_processes, mp_context=get_context("spawn"))  # forking spoils what CUDA holds
    try:
        yield Windows(tokenizer, recipe, pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _arrays(*arguments: object) -> list[tuple]:
    """Return a window's batches as arrays: tensors would go between processes as open files."""
    return [(batch.ids.numpy(), batch.weights.numpy(), batch.n_tokens) for batch in window(*arguments)]


def _pad(rows: list[tuple[list, list]], pad: int) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows])
    weights = torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in rows])
    return Batch(ids, weights, sum(len(ids) for ids, _ in rows))
