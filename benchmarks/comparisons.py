"""How often a comparison over few seeds calls a difference that isn't there: `paired_seeds` beside a t-test over seeds.

    python benchmarks/comparisons.py [--comparisons N] [--out FILE]

Two runs are made up that answer the same items rightly or wrongly; a fifth of the items changes between them, in either
direction alike. Which items do may be drawn anew for each seed, or be the same for all (`same_items`, a share of the
items), and a seed may lean to one side (`seed_sd`, of its difference). Other seeds and items would show no difference.
"""

import argparse
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from paired import write
from workload import results_path

from everlearn.evaluation.stats import paired_seeds, paired_t_p, wilson_interval
from everlearn.seeds import seed_for

LEVEL = 0.05
DISCORDANCE = 0.2
CASES = {
    "seeds and items apart": {"same_items": 0.0, "seed_sd": 0.0},
    "the same items change in all seeds": {"same_items": 1.0, "seed_sd": 0.0},
    "half of them, and seeds lean": {"same_items": 0.5, "seed_sd": 0.05},
}
N_SEEDS, N_ITEMS = (2, 3, 5), (20, 50, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=2000, help="of each kind (default 2000)")
    parser.add_argument("--out", type=Path, default=results_path("comparisons"))
    options = parser.parse_args()
    numbers = []
    for (name, case), n_seeds, n_items in product(CASES.items(), N_SEEDS, N_ITEMS):
        found = {"case": name, "n_seeds": n_seeds, "n_items": n_items}
        found |= false_positives(options.comparisons, n_seeds, n_items, **case)
        numbers.append(found)
        shares = (f"{test} {found[test]['value']:.3f}" for test in ("paired_seeds", "t_over_seeds"))
        print(f"{name}, {n_seeds} seeds, {n_items} items: {', '.join(shares)}", flush=True)
    config = {"comparisons": options.comparisons, "discordance": DISCORDANCE, "level": LEVEL, "cases": CASES}
    write(options.out, config, numbers)


def false_positives(n: int, n_seeds: int, n_items: int, *, same_items: float, seed_sd: float) -> dict[str, Any]:
    """Return the share of n comparisons that each test calls significant, with Wilson's 95% interval."""
    generator = np.random.default_rng(seed_for("comparisons", n_seeds, n_items, same_items, seed_sd))
    called = {"paired_seeds": 0, "t_over_seeds": 0}
    for _ in range(n):
        change = draw_change(generator, n_seeds, n_items, same_items, seed_sd)
        before, after = (change < 0).astype(float), (change > 0).astype(float)
        called["paired_seeds"] += paired_seeds(before, after).p_value < LEVEL
        called["t_over_seeds"] += _plain_t_p(change.mean(1)) < LEVEL
    return {test: asdict(wilson_interval(count, n)) for test, count in called.items()}


def draw_change(
    generator: np.random.Generator, n_seeds: int, n_items: int, same_items: float, seed_sd: float
) -> np.ndarray:
    """Return after − before [n_seeds, n_items]: −1, 0 or 1."""
    own = generator.random((1, n_items)) >= same_items
    drawn = np.where(own, generator.random((n_seeds, n_items)), generator.random((1, n_items)))
    lean = generator.normal(0, seed_sd, (n_seeds, 1)) / 2
    gained, lost = np.clip(DISCORDANCE / 2 + lean, 0, 1), np.clip(DISCORDANCE / 2 - lean, 0, 1)
    return (drawn < gained).astype(float) - (drawn > 1 - lost)


def _plain_t_p(changes: np.ndarray) -> float:
    """Return Student's p-value, which is 0 where the seeds coincide."""
    return 0.0 if np.ptp(changes) < 1e-12 and changes.any() else paired_t_p(changes)


if __name__ == "__main__":
    main()
