"""Reservoir sampling: a uniform sample of a stream whose length isn't known."""

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
