"""Reservoir sampling: a uniform sample of a stream whose length isn't known."""

from collections.abc import Mapping

import torch


def reservoir_slots(n_seen: int, n_new: int, capacity: int, generator: torch.Generator) -> dict[int, int]:
    """Return {slot: index of the new item that ends up there} after `n_new` items follow `n_seen` earlier ones.

    Each item of the whole stream is then kept with the same probability, capacity / (n_seen + n_new).

    Args:
        n_seen: items that went through the reservoir before.
        capacity: slots; the first `capacity` items of the stream fill them in order.

    Source: Vitter 1985, algorithm R.
    """
    placed: dict[int, int] = {}
    for new in range(n_new):
        number = n_seen + new
        slot = number if number < capacity else int(torch.randint(number + 1, (), generator=generator))
        if slot < capacity:
            placed[slot] = new
    return placed


def kept_by_reservoir(
    sizes: Mapping[str, int], task: str, n_new: int, n_seen: int, capacity: int, generator: torch.Generator
) -> dict[str, list[int]]:
    """Return which rows are left after the new ones of `task` went through a reservoir of `capacity` over all tasks.

    Rows count within their task: those in the reservoir, and the new ones after them.

    Args:
        sizes: rows that each task has in the reservoir.
    """
    slots = [(name, i) for name, n in sizes.items() for i in range(n)]
    placed = reservoir_slots(n_seen, n_new, capacity, generator)
    kept: dict[str, list[int]] = {}
    for slot, (name, i) in enumerate(slots):
        if slot not in placed:
            kept.setdefault(name, []).append(i)
    if placed:
        kept.setdefault(task, []).extend(sizes.get(task, 0) + placed[slot] for slot in sorted(placed))
    return kept
