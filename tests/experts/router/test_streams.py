"""Streams of a thousand tasks that drift: does tau hold the rate of false reuse?"""

import numpy as np
import pytest
from tests.experts.router.conftest import BLOCKS

from everlearn.experts.router import Candidate, Decision, Router, RouterConfig, calibration
from everlearn.experts.router.calibration import FEATURES

N_TASKS, N_STREAMS, RISK = 1000, 20, 0.1


def drifting(seed: int, *, familiar: float, drift: float, jump: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a similarity for each task, and whether reuse would be right.

    A share of the tasks, growing to `familiar`, is of known skills. The chance that reuse is right is a logistic
    function of the similarity, whose middle swings by `drift` over 700 tasks, from anywhere, and jumps once.
    """
    random, time = np.random.default_rng(seed), np.arange(N_TASKS)
    known = random.random(N_TASKS) < familiar * (1 - np.exp(-(time + 20) / 150))
    similarity = np.where(known, random.beta(9, 3, N_TASKS), random.beta(3, 6, N_TASKS))
    middle = 0.45 + drift * np.sin(2 * np.pi * (time / 700 + random.random()))
    middle += jump * (1 - 2 * (seed % 2)) * (time > random.integers(300, 700))
    return similarity, random.random(N_TASKS) < 1 / (1 + np.exp(-12 * (similarity - middle)))


def carried_out(seed: int, options: dict[str, object], **stream: float) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each task was a reuse, and whether a false one, with each outcome of a reuse told."""
    router = Router(RouterConfig(risk=RISK, **options), BLOCKS)
    reused, false = np.zeros(N_TASKS, dtype=bool), np.zeros(N_TASKS, dtype=bool)
    others = (
        np.random.default_rng(1000 + seed).random(N_TASKS) < 0.3
    )  # of what isn't reused, what is tried all the same
    for number, (similarity, right) in enumerate(zip(*drifting(seed, **stream), strict=True)):
        features = dict.fromkeys(FEATURES, 0.0) | {"similarity": float(similarity)}
        p = float(router._calibration.p(np.array([list(features.values())]))[0])
        reused[number] = p >= router.bar
        false[number] = reused[number] and not right
        best = Candidate(0, "", float(similarity), p, p, 0, features)
        action = "reuse" if reused[number] else "create"
        decision = Decision(action, None, (best,), router.bar, bool(reused[number]), 1.0, "")
        router.learned(decision, bool(right) if reused[number] or others[number] else None)
    return reused, false


MODERATE = {"familiar": 0.8, "drift": 0.06, "jump": 0.08}
HARSH = {"familiar": 0.5, "drift": 0.12, "jump": 0.15}


def test_a_tenth_of_reuses_is_false_and_some_reuse_always_happens():
    for seed in range(N_STREAMS):
        reused, false = carried_out(seed, {}, **MODERATE)
        assert false[400:].sum() / reused[400:].sum() == pytest.approx(RISK, abs=0.02)
        so_far = np.cumsum(false) / np.maximum(np.cumsum(reused), 1)
        assert so_far[400:].max() < RISK + 0.02
        assert reused[-200:].sum() > 20


def test_a_tenth_of_tasks_is_false_reuse_where_that_is_asked_for_however_they_drift(monkeypatch):
    monkeypatch.setattr(calibration, "ISOTONIC_FROM", N_TASKS + 1)  # tau holds the rate whatever p is, and this is fast
    for seed in range(N_STREAMS):
        _, false = carried_out(seed, {"risk_of": "tasks"}, **HARSH)
        assert false[400:].mean() == pytest.approx(RISK, abs=0.02)


def test_where_little_fits_and_much_drifts_reuse_goes_on_at_about_the_rate():
    found = [carried_out(seed, {}, **HARSH) for seed in range(5)]
    rates = [false[400:].sum() / reused[400:].sum() for reused, false in found]
    assert np.mean(rates) == pytest.approx(RISK, abs=0.03)
    assert all(reused[-200:].any() for reused, _ in found)
