"""How many problems a second the arena makes on one core, beside reasoning-gym on comparable types.

    python benchmarks/arena.py [--rounds N] [--peer PYTHON] [--out FILE]

PYTHON is the interpreter of another environment that holds reasoning-gym (benchmarks/arena_worker.py says how it is
made). In each round every type of ours draws 300 new items of the `train` split, difficulties in turn: these rounds
give the problems a second. In as many rounds more its counterpart there follows each type at once, for the ratios; the
caches aren't ours alone then. Times are processor times, which leave out the moments when others held the core.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from paired import median_with_interval, write
from workload import results_path

from everlearn.streams.arena import ADVANCED_TYPES, TYPES, generate_batch

N_ITEMS, N_PEER_ITEMS = 300, 10
BAR = 50_000  # problems a second, the mean over all types
COUNTERPARTS = {  # types of reasoning-gym that ask for the same kind of thing, with its default settings
    "comparison": "family_relationships",
    "sequence": "number_sequence",
    "causal": "syllogism",
    "math": "chain_sum",
    "logic": "zebra_puzzles",
    "multistep": "gsm_symbolic",
    "algebra": "simple_equations",
    "probability": "coin_flip",
    "geometry": "simple_geometry",
    "code": "bf",
}


class Peer:
    """reasoning-gym in its own interpreter."""

    def __init__(self, python: str):
        worker = Path(__file__).with_name("arena_worker.py")
        self.process = subprocess.Popen(
            [python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.versions = json.loads(self.process.stdout.readline())

    def time(self, name: str, start: int) -> float:
        """Return the microseconds that an item took, on average over `N_PEER_ITEMS` of them."""
        print(json.dumps({"name": name, "start": start, "n": N_PEER_ITEMS}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline()) / N_PEER_ITEMS * 1e6

    def close(self) -> None:
        """Let the worker end."""
        self.process.stdin.close()
        self.process.wait()


def time_ours(type_name: str, start: int) -> float:
    """Return the microseconds that an item took, on average over `N_ITEMS` of them."""
    started = time.process_time()
    generate_batch(N_ITEMS, types=[type_name], start=start)
    return (time.process_time() - started) / N_ITEMS * 1e6


def main() -> None:
    """Measure every type, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--peer", help="python of an environment with reasoning-gym")
    parser.add_argument("--out", type=Path, default=results_path("arena"))
    arguments = parser.parse_args()
    peer = Peer(arguments.peer) if arguments.peer else None
    types = (*TYPES, *ADVANCED_TYPES)
    ours: dict[str, list[float]] = {name: [] for name in types}
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in types if peer and name in COUNTERPARTS}
    for number in range(-1, arguments.rounds):  # the first round warms up and doesn't count
        for name in types:
            taken = time_ours(name, max(number, 0) * N_ITEMS)
            ours[name] += [taken] if number >= 0 else []
    for number in range(-1, arguments.rounds):
        for name in ratios:
            taken = time_ours(name, max(number, 0) * N_ITEMS)
            peer_taken = peer.time(COUNTERPARTS[name], max(number, 0) * N_PEER_ITEMS)
            ratios[name] += [(taken, peer_taken)] if number >= 0 else []
    numbers = summarise(ours, ratios)
    for name, found in numbers["types"].items():
        beside = f", {found['counterpart']} {found['peer_us']['median']:.1f}" if name in ratios else ""
        ratio = f", {found['times_as_fast']['median']:.1f} times as fast" if name in ratios else ""
        print(f"{name}: {found['us']['median']:.1f} µs{beside}{ratio}")
    rate = numbers["problems_per_second"]
    print(f"all types: {rate['median']:,.0f} a second [{rate['low']:,.0f}, {rate['high']:,.0f}], bar {BAR:,}")
    config = {"rounds": arguments.rounds, "n_items": N_ITEMS, "n_peer_items": N_PEER_ITEMS}
    write(arguments.out, {**config, "peer": peer.versions if peer else None}, numbers)
    if peer:
        peer.close()


def summarise(ours: dict[str, list[float]], in_turns: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Return medians with intervals over rounds: by type in microseconds, and of all types the problems a second.

    Args:
        ours: µs of an item, a round each. in_turns: the same, and at once the counterpart's.
    """
    types: dict[str, Any] = {}
    for name, taken in ours.items():
        types[name] = {"us": median_with_interval(np.array(taken))}
        if name in in_turns:
            beside, peer_taken = np.array(in_turns[name]).T
            types[name] |= {
                "counterpart": COUNTERPARTS[name],
                "peer_us": median_with_interval(peer_taken),
                "times_as_fast": median_with_interval(peer_taken / beside),
            }
    rate = median_with_interval(1e6 / np.mean(list(ours.values()), axis=0))
    return {"problems_per_second": {**rate, "bar": BAR, "met": rate["median"] >= BAR}, "types": types}


if __name__ == "__main__":
    main()
