"""Reservoir sampling: a uniform sample of a stream whose length isn't known."""

from collections.abc import Mapping

import torch


def reservoir_slots(
    n_seen: int, n_new: int, capacity: int, generator: torch.Generator, n_held: int | None = None
) -> dict[int, int]:
    """Return {slot: index of the new item that ends up there} after `n_new` items follow `n_seen` earlier ones.

    Each item of the whole stream is then kept with the same probability, capacity / (n_seen + n_new). Where fewer are
    held than there is room for, since the capacity was raised after items had been let go, those to come are taken
    with probability (items held) / (items seen), which on average stays what it was: it is that of every earlier item
    too, for what was let go can't be had back. Once the reservoir is full, it goes on as always.

    Args:
        n_seen: items that went through the reservoir before.
        capacity: slots; the first `capacity` items of the stream fill them in order.
        n_held: items in the reservoir, in the first slots; by default as many as a constant capacity has.

    Source: Vitter 1985, algorithm R; on raising a capacity: Gemulla, Lehner & Haas 2008, "Maintaining bounded-size
    sample synopses of evolving datasets". Departs: the probability is that of the moment, where theirs is fixed, so
    that nothing but the two numbers need be kept.
    """
    held = min(n_seen, capacity) if n_held is None else n_held
    placed: dict[int, int] = {}
    for new in range(n_new):
        number = n_seen + new
        if held < capacity:
            if held >= number or int(torch.randint(number, (), generator=generator)) < held:
                placed[held] = new
                held += 1
            continue
        slot = int(torch.randint(number + 1, (), generator=generator))
        if slot < capacity:
            placed[slot] = new
    return placed


def draw_within(sizes: Mapping[str, int], capacity: int, generator: torch.Generator) -> dict[str, list[int]]:
    """Return which rows of each task are left where there is room for `capacity` over all tasks, drawn uniformly.

    A uniform choice out of a uniform sample is one of all that was sampled from.

    Args:
        sizes: rows that each task has.
    """
    places = [(name, i) for name, n in sizes.items() for i in range(n)]
    chosen = range(len(places))
    if len(places) > capacity:
        chosen = sorted(torch.randperm(len(places), generator=generator)[:capacity].tolist())
    kept: dict[str, list[int]] = {}
    for name, i in (places[place] for place in chosen):
        kept.setdefault(name, []).append(i)
    return kept


def kept_by_reservoir(
    sizes: Mapping[str, int], task: str, n_new: int, n_seen: int, capacity: int, generator: torch.Generator
) -> dict[str, list[int]]:
    """Return which rows are left after the new ones of `task` went through a reservoir of `capacity` over all tasks.

    Rows count within their task: those in the reservoir, and the new ones after them.

    Args:
        sizes: rows that each task has in the reservoir. Those that are too many are let go first.
    """
    present = draw_within(sizes, capacity, generator)
    slots = [(name, i) for name, own in present.items() for i in own]
    placed = reservoir_slots(n_seen, n_new, capacity, generator, len(slots))
    kept: dict[str, list[int]] = {}
    for slot, (name, i) in enumerate(slots):
        if slot not in placed:
            kept.setdefault(name, []).append(i)
    if placed:
        kept.setdefault(task, []).extend(sizes.get(task, 0) + placed[slot] for slot in sorted(placed))
    return kept
