"""How fast Countdown problems are made, beside a plain loop over single problems; and what all 404,000 take.

    python benchmarks/countdown.py [--rounds N] [--problems N] [--whole] [--out FILE]

In each round, for each operator group, ours draws so many different problems of 3 and 4 numbers up to 97, counts the
solutions of each and writes the planted one as text; right after, the plain loop does the part of it that such loops
do: a random tree for each problem, as TinyZero's generator builds it, the same rules for steps and target, a set
against duplicates, the planted expression. It counts no solutions. With `--whole` the defaults of `everlearn countdown
generate` are written on two processes, Parquet included.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from paired import median_with_interval, write
from workload import results_path

from everlearn.seeds import seed_for
from everlearn.streams.countdown.draw import draw_problems
from everlearn.streams.countdown.groups import GROUPS, Space

BAR_S = 30  # for all 404,000
N_TEST = 100


def plain_problem(rng: random.Random, n: int, operators: str, space: Space) -> tuple[tuple[int, ...], int, str] | None:
    """Return (numbers, target, expression) of one random tree, or None where a step or the target isn't allowed."""
    numbers = [rng.randint(space.min_number, space.max_number) for _ in range(n)]
    pool = [(number, str(number)) for number in numbers]
    while len(pool) > 1:
        (a, left), (b, right) = (pool.pop(rng.randrange(len(pool))) for _ in range(2))
        operator = rng.choice(operators)
        if operator == "+":
            value = a + b
        elif operator == "-":
            value = a - b
        elif operator == "*":
            value = a * b
        elif b == 0 or a % b:
            return None
        else:
            value = a // b
        if value < 0:
            return None
        pool.append((value, f"({left} {operator} {right})"))
    target, text = pool[0]
    return (tuple(numbers), target, text) if space.min_target <= target <= space.max_target else None


def plain_problems(space: Space, n_problems: int, seed: int) -> list[tuple[tuple[int, ...], int, str]]:
    """Return different problems, half of them of each size, as long as there are any."""
    rng, seen, found = random.Random(seed), set(), []
    while len(found) < n_problems:
        problem = plain_problem(rng, space.sizes[len(found) % len(space.sizes)], space.operators, space)
        if problem is None:
            continue
        name = (tuple(sorted(problem[0])), problem[1])
        if name not in seen:
            seen.add(name)
            found.append(problem)
    return found


def our_problems(space: Space, n_problems: int, seed: int) -> list[str]:
    """Return the solutions of as many problems of ours."""
    problems, _ = draw_problems(space, n_problems - N_TEST, N_TEST, seed)
    return [solution for parts in problems.values() for part in parts for solution in part.solutions(space.operators)]


def timed(work: Callable[..., list], *arguments: Any) -> tuple[float, float]:
    """Return the wall and processor seconds that the work took."""
    started = time.perf_counter(), time.process_time()
    work(*arguments)
    return time.perf_counter() - started[0], time.process_time() - started[1]


def whole() -> dict[str, Any]:
    """Write the default files to a folder that is removed, on two processes."""
    with tempfile.TemporaryDirectory() as folder:
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "everlearn", "countdown", "generate", "--processes", "2", "--out", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {
        "wall_s": wall, "cpu_s_of_both": cpu, "bytes": size,
        "bar_s": BAR_S, "met": wall <= BAR_S, "met_by_cpu": cpu / 2 <= BAR_S,
    }  # fmt: skip
    print(f"404,000 problems: {wall:.1f} s, {cpu:.1f} s of processor time in all, bar {BAR_S} s; {size / 1e6:.1f} MB")
    return found


def main() -> None:
    """Measure every group, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--out", type=Path, default=results_path("countdown"))
    arguments = parser.parse_args()
    numbers: dict[str, Any] = {"groups": {}}
    pairs: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {group: [] for group in GROUPS}
    for number in range(-1, arguments.rounds):  # the first round warms up and doesn't count
        for group, kept in pairs.items():
            work = Space(group), arguments.problems, seed_for("countdown", group, number)
            pair = timed(our_problems, *work), timed(plain_problems, *work)
            kept += [pair] if number >= 0 else []
    for group, kept in pairs.items():
        times = np.array(kept)  # [rounds, ours and plain, wall and processor]
        found = {
            "ours_us": median_with_interval(times[:, 0, 1] / arguments.problems * 1e6),
            "plain_us": median_with_interval(times[:, 1, 1] / arguments.problems * 1e6),
            "times_as_fast": median_with_interval(times[:, 1, 0] / times[:, 0, 0]),
            "cpu_times_as_fast": median_with_interval(times[:, 1, 1] / times[:, 0, 1]),
        }
        numbers["groups"][group] = found
        ratio = found["cpu_times_as_fast"]
        print(
            f"group {group}: {found['ours_us']['median']:.1f} µs a problem, plain {found['plain_us']['median']:.1f}, "
            f"{ratio['median']:.1f} times as fast [{ratio['low']:.1f}, {ratio['high']:.1f}]"
        )
    if arguments.whole:
        numbers["whole"] = whole()
    write(arguments.out, {"rounds": arguments.rounds, "problems": arguments.problems}, numbers)


if __name__ == "__main__":
    main()
