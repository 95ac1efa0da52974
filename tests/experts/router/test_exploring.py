"""Upper bounds, trials, the bar, and tasks that lie far apart."""

import math

import numpy as np
import pytest
import torch
from tests.experts.router.conftest import BLOCKS, library_of, look, skills

from everlearn.experts.profiles import Prototypes
from everlearn.experts.router import Router, RouterConfig
from everlearn.experts.router.exploring import k_centres, posterior, trial_chance, upper_bound
from everlearn.experts.router.threshold import cap, moved


def test_p_counts_for_ten_outcomes():
    assert posterior(0.6, 0, 0) == 0.6
    assert posterior(0.6, 10, 10) == pytest.approx(0.8)
    assert posterior(0.6, 0, 90) == pytest.approx(0.06)


def test_the_bound_falls_with_outcomes_and_rises_with_time():
    assert upper_bound(0.5, 0, 0, 0.3) == 0.5
    assert upper_bound(0.5, 6, 100, 0.2) == pytest.approx(0.5 + 0.2 * math.sqrt(math.log(100) / 16))
    assert upper_bound(0.5, 6, 100, 0) == 0.5


def test_an_expert_that_failed_at_this_similarity_gives_way_to_one_that_was_not_tried():
    skill = skills(1)[0]
    known = Prototypes(
        torch.stack([look(skill, 1, 0.1), look(skill, 2, 0.12), skills(1, seed=5)[0]]), [0, 1, 2], list("abc")
    )
    one = Router(RouterConfig(explore=0.3), BLOCKS)
    task = look(skill, 1, 0.1)
    first = one.decide(task, known, {})
    assert first.candidates[0].expert == 0
    for _ in range(4):
        one.learned(first, False)
    assert one.decide(task, known, {}).candidates[0].expert == 1


def test_trials_get_fewer_but_not_below_the_rate():
    assert [trial_chance(n, 0.25) for n in (0, 3, 8, 15, 100)] == [1, 0.5, pytest.approx(1 / 3), 0.25, 0.25]
    assert trial_chance(0, 0.0) == 0


def test_the_rate_of_false_reuse_follows_from_where_tau_is():
    false = np.random.default_rng(0).random(200) < 0.3
    tau = 0.9
    for one in false:
        tau = moved(tau, one, 0.1, 0.05)
    assert false.mean() == pytest.approx(0.1 + (tau - 0.9) / (0.05 * 200))


def test_the_bar_is_capped_by_what_the_last_tasks_had():
    assert cap([0.2] * 19) == math.inf
    assert cap(np.linspace(0, 1, 101)) == pytest.approx(0.95)
    known, one = library_of(12), Router(RouterConfig(step=1.0), BLOCKS)
    for number in range(24):
        decision = one.decide(look(known.vectors[number // 2], number, noise=0.05 * number), known, {})
        one.learned(decision, False)
    assert one.tau > 1
    assert one.bar < 1
    assert one.bar == pytest.approx(np.sort(one._calibration.p(one._recent))[22])


def farthest_first(vectors: torch.Tensor, k: int, chosen: list[int]) -> list[int]:
    """The same in a slow way: from each vector to the nearest chosen one, the farthest is next."""
    new: list[int] = []
    while len(new) < k:
        taken = [*chosen, *new]
        rest = [i for i in range(len(vectors)) if i not in taken]
        new.append(max(rest, key=lambda i: min(float(1 - vectors[i] @ vectors[j]) for j in taken)))
    return new


def test_k_centres_are_the_farthest_each_time():
    vectors = torch.nn.functional.normalize(skills(30, seed=2), dim=1)
    first, *others = k_centres(vectors, 6)
    assert first == int((vectors @ vectors.mean(0)).argmin())
    assert others == farthest_first(vectors, 5, [first])
    assert k_centres(vectors[5:], 4, vectors[:5]) == [i - 5 for i in farthest_first(vectors, 4, list(range(5)))]
    assert sorted(k_centres(vectors, 99)) == list(range(30))


def test_of_tasks_known_ahead_those_that_differ_most_are_to_be_learned_first():
    apart = skills(3, seed=1)
    tasks = torch.stack([look(apart[n % 3], n, 0.1) for n in range(9)])
    one = Router(RouterConfig(bootstrap=3), BLOCKS)
    assert {n % 3 for n in one.first(tasks, library_of(0))} == {0, 1, 2}
    known = Prototypes(apart[:2], [4, 6], ["a", "b"])
    (only,) = one.first(tasks, known)
    assert only % 3 == 2
    assert one.first(tasks, Prototypes(apart, [4, 6, 7], ["a", "b", "c"])) == []
