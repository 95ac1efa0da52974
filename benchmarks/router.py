"""Deciding among very many experts: how long a decision takes, by search and by comparing all, and in how much memory.

    OMP_NUM_THREADS=1 python benchmarks/router.py [--only NAME ...] [--out FILE]

Prototypes are synthetic: of skills in groups of 50, whose centres lie in a space of 40 dimensions, with noise; a task
is a look at one of them, with other noise. A decision is all of `Router.decide`, by a router that has learned from 400
outcomes: the search, features, p, bounds and tau. All tasks are decided fifteen times over, one after the other, and of
each the fastest counts (`wall_ms`): the others tell of what else the machine does. `cpu_ms` is the processor time of
all. Needs usearch: `pip install 'everlearn[search]'`.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paired import write
from workload import results_path

from everlearn.experts.profiles import Prototypes
from everlearn.experts.router import Router, RouterConfig
from everlearn.experts.router import router as deciding
from everlearn.experts.signals.context import FEATURES as CONTEXT
from everlearn.seeds import generator_for

GROUP, RANK, NOISE, LOOK_NOISE = 50, 40, 0.5, 0.2
N_DECISIONS, N_PASSES, N_OUTCOMES = 1000, 15, 400
# name: experts, numbers of text and of the gradient, whether all are compared
CASES = {
    "1,000 of 649": (1_000, 384, 256, True),
    "10,000 of 649, all compared": (10_000, 384, 256, True),
    "10,000 of 649": (10_000, 384, 256, False),
    "100,000 of 128": (100_000, 64, 55, False),
    "1,000,000 of 128": (1_000_000, 64, 55, False),
}


def synthetic(n: int, dimension: int) -> Prototypes:
    """Return the prototypes of n experts, one each."""
    generator = generator_for("router benchmark", n, dimension)
    draw = torch.randn(RANK, dimension, generator=generator) / RANK**0.5
    centres = torch.randn(-(-n // GROUP), RANK, generator=generator) @ draw
    vectors = centres.repeat_interleave(GROUP, 0)[:n]
    for part in vectors.split(100_000):
        part += NOISE * torch.randn(part.shape, generator=generator)
    return Prototypes(vectors, list(range(n)), [f"task {number}" for number in range(n)])


def looks(prototypes: Prototypes, n: int) -> tuple[torch.Tensor, list[int]]:
    """Return looks at n of the skills, and the experts of these."""
    generator = generator_for("router benchmark looks", n)
    rows = torch.randint(len(prototypes.vectors), (n,), generator=generator)
    vectors = prototypes.vectors[rows]
    return vectors + LOOK_NOISE * torch.randn(vectors.shape, generator=generator), rows.tolist()


def measure(n: int, n_text: int, n_gradient: int, *, exact: bool) -> dict[str, Any]:
    """Return what decisions among n experts take."""
    deciding.EXACT = n if exact else min(n - 1, 3000)
    blocks = {"text": n_text, "gradient": n_gradient, "context": len(CONTEXT)}
    prototypes = synthetic(n, sum(blocks.values()))
    uses = dict.fromkeys(range(n), 3)
    with tempfile.TemporaryDirectory() as folder:
        router = Router(RouterConfig(), blocks, cache=Path(folder) / "index")
        before, started, used = memory(), time.perf_counter(), time.thread_time()
        router.decide(prototypes.vectors[0], prototypes, uses)
        prepared = {"prepared_s": time.perf_counter() - started, "prepared_cpu_s": time.thread_time() - used}
        grown, file = memory() - before, Path(folder) / "index" / "rows.usearch"
        if not exact:
            prepared |= {"recall": router._index.recall, "effort": router._index.graph.expansion_search}
            prepared |= {"graph_bytes": int(router._index.graph.memory_usage), "file_bytes": file.stat().st_size}
            started, again = time.perf_counter(), Router(RouterConfig(), blocks, cache=Path(folder) / "index")
            again.decide(prototypes.vectors[0], prototypes, uses)
            prepared["opened_s"] = time.perf_counter() - started
    vectors, experts = looks(prototypes, N_OUTCOMES)
    for place, (vector, expert) in enumerate(zip(vectors, experts, strict=True)):
        decision = router.decide(vector if place % 2 else torch.randn(len(vector)), prototypes, uses)
        router.learned(decision, bool(place % 2) and decision.candidates[0].expert == expert)
    vectors, experts = looks(prototypes, N_DECISIONS)
    times, right = np.empty((N_PASSES, N_DECISIONS, 2)), 0
    for lap in range(N_PASSES):
        for place, (vector, expert) in enumerate(zip(vectors, experts, strict=True)):
            started, used = time.perf_counter(), time.thread_time()
            decision = router.decide(vector, prototypes, uses)
            times[lap, place] = time.perf_counter() - started, time.thread_time() - used
            right += decision.candidates[0].expert == expert
    wall, cpu = 1e3 * times[..., 0].min(0), 1e3 * times[..., 1].ravel()
    return {
        "n": N_DECISIONS, "passes": N_PASSES, "wall_ms": percentiles(wall), "cpu_ms": percentiles(cpu),
        "right": right / times[..., 0].size, **prepared, "prototypes_bytes": prototypes.vectors.nbytes,
        "peak_grown_bytes": grown,
    }  # fmt: skip


def percentiles(values: np.ndarray) -> dict[str, float]:
    """Return the 50th, 95th and 99th percentile, and an interval of the last by its order statistics (95%)."""
    ordered, n = np.sort(values), len(values)
    half = 1.96 * (n * 0.99 * 0.01) ** 0.5
    low, high = ordered[int(0.99 * n - half)], ordered[min(n - 1, int(0.99 * n + half) + 1)]
    middle = {f"p{q}": float(np.percentile(values, q)) for q in (50, 95, 99)}
    return middle | {"p99_low": float(low), "p99_high": float(high)}


def memory() -> int:
    """Return the most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="some of the cases")
    parser.add_argument("--out", type=Path, default=results_path("router"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    numbers = {}
    for name in arguments.only:
        n, n_text, n_gradient, exact = CASES[name]
        numbers[name] = measure(n, n_text, n_gradient, exact=exact)
        print(name, json.dumps(numbers[name], indent=1), flush=True)
        config = {"group": GROUP, "rank": RANK, "noise": NOISE, "look_noise": LOOK_NOISE}
        write(arguments.out, config | {"outcomes": N_OUTCOMES, "cases": {one: CASES[one] for one in numbers}}, numbers)


if __name__ == "__main__":
    main()
