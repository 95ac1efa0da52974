"""Prequential scores: against river's and scikit-learn's where nothing fades, against sums by hand where it does."""

import random

import numpy as np
import pytest
from river.metrics import Accuracy, CohenKappa, MacroF1
from seqeval.metrics import f1_score
from sklearn.metrics import accuracy_score, cohen_kappa_score

from everlearn.errors import ConfigError
from everlearn.evaluation.prequential import Confusion, PrequentialLabels, PrequentialTags, Ratio

LABELS = ("a", "b", "c")


def pairs(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Uneven classes, answered rightly half of the time."""
    draw = random.Random(seed)
    rights = draw.choices(LABELS, (7, 2, 1), k=n)
    return [(right, right if draw.random() < 0.5 else draw.choice(LABELS)) for right in rights]


def test_without_fading_they_are_those_of_river():
    confusion, others = Confusion(), (Accuracy(), CohenKappa(), MacroF1())
    for right, answer in pairs(80):
        confusion.add([(right, answer)])
        for other in others:
            other.update(right, answer)
        found = (confusion.accuracy(), confusion.kappa(), confusion.macro_f1())
        assert found == pytest.approx([other.get() for other in others])


def test_faded_rows_weigh_less_by_the_factor_each_row():
    confusion, found = Confusion(0.9), pairs(60)
    for pair in found:
        confusion.add([pair])
    weights = 0.9 ** np.arange(60)[::-1]
    rights, answers = zip(*found, strict=True)
    assert confusion.accuracy() == pytest.approx(accuracy_score(rights, answers, sample_weight=weights))
    assert confusion.kappa() == pytest.approx(cohen_kappa_score(rights, answers, sample_weight=weights))


def test_what_is_answered_before_any_label_is_known_is_wrong_and_no_class():
    scores = PrequentialLabels(0.9)
    scores.add({"label": 0}, None, LABELS[:1])
    assert scores.scores()["whole"] == {"accuracy": 0.0, "kappa": 0.0, "macro_f1": 0.0, "majority": 0.0}
    scores.add({"label": 0}, "a", LABELS[:1])
    found = scores.scores()["whole"]
    assert (found["accuracy"], found["majority"]) == (0.5, 0.5)
    assert found["macro_f1"] == pytest.approx(2 / 3)
    interval = scores.interval(2)
    assert interval.low < interval.value == 0.5 < interval.high


def test_majority_is_the_class_that_was_most_frequent_before_the_row():
    scores = PrequentialLabels(1.0)
    for label in (0, 0, 1, 1, 1, 1):  # the most frequent: none, a, a, a, a (as often as b, and first), b
        scores.add({"label": label}, "a", LABELS)
    assert scores.scores()["whole"]["majority"] == pytest.approx(2 / 6)


def test_entities_are_those_of_seqeval_and_words_without_a_tag_do_not_count():
    names = ("O", "B-x", "I-x", "B-y")
    draw, scores, rights, answers = random.Random(1), PrequentialTags(1.0), [], []
    for _ in range(30):
        tags = [draw.randrange(4) for _ in range(6)]
        answer = [name if draw.random() < 0.7 else draw.choice(names) for name in (names[tag] for tag in tags)]
        scores.add({"tags": [*tags, -100]}, [*answer, "B-y"], names)
        rights.append([names[tag] for tag in tags])
        answers.append(answer)
    found = scores.scores()["whole"]
    assert found["entity_f1"] == pytest.approx(f1_score(rights, answers))
    assert found["accuracy"] == pytest.approx(np.mean(np.array(rights) == np.array(answers)))
    interval = scores.interval(30)
    assert 0 < interval.low < interval.value < interval.high < 1


@pytest.mark.parametrize("fading", [1.0, 0.9])
def test_they_go_on_from_their_state_bit_for_bit(fading):
    whole, first = PrequentialLabels(fading), PrequentialLabels(fading)
    rows = [({"label": LABELS.index(right)}, answer) for right, answer in pairs(40)]
    for row, answer in rows:
        whole.add(row, answer, LABELS)
    for row, answer in rows[:17]:
        first.add(row, answer, LABELS)
    second = PrequentialLabels(fading)
    second.load_state(first.state())
    for row, answer in rows[17:]:
        second.add(row, answer, LABELS)
    assert second.scores() == whole.scores()


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values, ratio = np.random.default_rng(0).normal(5, 2, 400), Ratio()
    for value in values:
        ratio.add(value, 1.0)
    interval = ratio.interval()
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.value == pytest.approx(1.959964 * values.std() / 20)


@pytest.mark.parametrize("fading", [0.0, 1.1])
def test_a_fading_outside_its_range_is_refused(fading):
    with pytest.raises(ConfigError, match=r"prequential\.fading"):
        PrequentialLabels(fading)
