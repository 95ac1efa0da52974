"""What is said of a task's training, by outcomes made by hand."""

import numpy
import pytest

from everlearn.evaluation.gain import (
    ALREADY_KNOWN,
    LEARNED,
    LOG_LIKELIHOOD,
    NOTHING,
    WORSE,
    answer_likelihood,
    is_known,
    verdict_on,
)
from everlearn.types import Score
from support.runs import make_bench


def score(outcomes, metric="exact_match"):
    return Score("t", metric, sum(outcomes) / len(outcomes), None, None, len(outcomes), tuple(map(float, outcomes)))


def likelihood(outcomes):
    return score(outcomes, LOG_LIKELIHOOD)


FLAT = likelihood([-2.0, -3.0, -1.0] * 4)
RISEN = likelihood([-1.0, -1.5, -0.8] * 4)
NOISY = likelihood([-1.9, -3.1, -1.0, -2.1, -2.8, -1.0] * 2)
WRONG, RIGHT, HALF = score([0] * 12), score([1] * 12), score([0, 1] * 6)


@pytest.mark.parametrize(
    ("before", "after", "first", "second", "known", "wanted"),
    [
        (WRONG, RIGHT, FLAT, FLAT, False, LEARNED),
        (WRONG, WRONG, FLAT, RISEN, False, LEARNED),
        (WRONG, WRONG, FLAT, NOISY, False, NOTHING),
        (WRONG, score([1] + [0] * 11), FLAT, NOISY, False, NOTHING),
        (WRONG, WRONG, FLAT, likelihood([one + 1e-6 for one in FLAT.outcomes]), False, NOTHING),
        (RIGHT, RIGHT, FLAT, NOISY, False, ALREADY_KNOWN),
        (HALF, HALF, FLAT, NOISY, True, ALREADY_KNOWN),
        (RIGHT, WRONG, FLAT, NOISY, True, WORSE),
        (RIGHT, WRONG, FLAT, RISEN, False, WORSE),
        (score([1] * 10 + [0, 0]), RIGHT, FLAT, FLAT, False, LEARNED),  # two items more aren't beyond chance; 1.0 is
    ],
)
def test_what_a_training_did(before, after, first, second, known, wanted):
    assert verdict_on(before, after, first, second, known=known) == wanted


@pytest.mark.parametrize("n", [1, 2, 9])
def test_of_few_items_an_estimate_has_to_do(n):
    flat = likelihood([-2.0] * n)
    assert verdict_on(score([0] * n), score([0] * n), flat, likelihood([-1.9] * n)) == LEARNED
    assert verdict_on(score([0] * n), score([1] + [0] * (n - 1)), flat, flat) == LEARNED
    assert verdict_on(score([0] * n), score([0] * n), flat, likelihood([-2.1] * n)) == NOTHING


def test_chance_alone_seldom_passes_for_learning():
    draw, n_learned = numpy.random.default_rng(0), 0
    for _ in range(400):
        before, after = draw.random(20) < 0.3, draw.random(20) < 0.3
        first, second = draw.normal(-2, 0.5, 20), draw.normal(-2, 0.5, 20)
        n_learned += verdict_on(score(before), score(after), likelihood(first), likelihood(second)) == LEARNED
    assert n_learned <= 400 * 0.08


def test_scores_without_a_top_tell_nothing_of_what_is_known():
    assert is_known(RIGHT)
    assert not is_known(HALF)
    assert not is_known(likelihood([0.99] * 12))


@pytest.mark.parametrize("kind", ["causal_lora", "classify", "tag", "plain"])
def test_the_likelihood_of_the_right_answers_is_that_of_their_targets(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run, task = bench.run(), bench.tasks[0]
    before = answer_likelihood(run, task)
    run.learn(task)
    after = answer_likelihood(run, task)
    assert (before.metric, before.n) == (LOG_LIKELIHOOD, len(task.evaluation))
    assert before.value < 0
    assert before.outcomes != after.outcomes
    assert after == answer_likelihood(run, task)
