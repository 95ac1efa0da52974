"""p(reuse) from outcomes."""

import numpy as np
import pytest

from everlearn.experts.router import calibration
from everlearn.experts.router.calibration import FEATURES, MIDDLES, Calibration, calibrated


def outcomes(n: int, seed: int, truth) -> tuple[np.ndarray, np.ndarray]:
    """Return features [n, 5], of which the similarity alone tells anything, and outcomes [n]."""
    random = np.random.default_rng(seed)
    features = random.random((n, len(FEATURES)))
    return features, random.random(n) < truth(features[:, 0])


def logistic(similarity: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-9 * (similarity - 0.55)))


def step(similarity: np.ndarray) -> np.ndarray:
    return np.where(similarity > 0.6, 0.8, 0.25)


def at(similarity: np.ndarray) -> np.ndarray:
    return np.column_stack([similarity, np.full((len(similarity), len(FEATURES) - 1), 0.5)])


def test_without_outcomes_p_is_the_similarity_at_the_middles_of_the_bins():
    known = calibrated(np.zeros((0, 5)), np.zeros(0, dtype=bool))
    assert known.kind == "bins"
    np.testing.assert_allclose(known.p(at(MIDDLES)), MIDDLES)
    np.testing.assert_allclose(known.p(at(np.array([-1.0, 0.2, 1.0]))), [0.1, 0.2, 0.9])


def test_bins_are_beta_posteriors_made_monotone():
    features = at(np.array([0.85, 0.85, 0.95, 0.45, 0.45]))
    known = calibrated(features, np.array([True, False, True, True, True]))
    # (2 · 0.9 + 2) / 5 = 0.76; (2 · 0.5 + 2) / 4 = 0.75 in the middle bin, above the next one's 0.7, of weight 2
    middle = (4 * 0.75 + 2 * 0.7) / 6
    np.testing.assert_allclose(known.y, [0.1, 0.3, middle, middle, 0.76])


def test_outcomes_that_are_all_alike_are_a_matter_of_bins():
    features, _ = outcomes(60, 0, logistic)
    known = calibrated(features, np.ones(60, dtype=bool))
    assert known.kind == "bins"
    assert known.p(features).min() > 0.6
    assert known.p(features).max() < 1


@pytest.mark.parametrize(
    ("n", "kind", "n_used"), [(19, "bins", 1), (20, "platt", 2), (45, "platt", 4), (80, "platt", 5)]
)
def test_platt_from_twenty_a_feature_for_each_ten(n, kind, n_used):
    known = calibrated(*outcomes(n, 3, logistic))
    assert (known.kind, np.count_nonzero(known.weights)) == (kind, n_used)


def test_platt_is_scikit_learns_logistic_regression_of_standardised_features():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, right = outcomes(100, 1, logistic)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=1.0)).fit(features, right)
    np.testing.assert_allclose(
        calibrated(features, right).p(features), reference.predict_proba(features)[:, 1], rtol=1e-6
    )


def test_from_some_hundreds_the_curve_is_isotonic_where_that_is_better():
    stepped = calibrated(*outcomes(600, 0, step))
    assert stepped.kind == "isotonic"
    grid = at(np.linspace(0.02, 0.98, 49))
    assert (np.diff(stepped.p(grid)) >= 0).all()
    assert np.abs(stepped.p(grid) - step(grid[:, 0])).mean() < 0.08
    assert calibrated(*outcomes(600, 1, logistic)).kind == "platt"


def test_an_isotonic_curve_is_never_0_or_1():
    features, right = outcomes(400, 0, lambda s: (s > 0.5).astype(float))
    known = calibration._isotonic(calibration._platt(features, right.astype(float)), features, right.astype(float))
    assert 0 < known.p(features).min() < 0.05
    assert 0.95 < known.p(features).max() < 1


@pytest.mark.parametrize(("n", "truth", "most"), [(10, logistic, 0.04), (40, logistic, 0.03), (400, step, 0.018)])
def test_p_is_near_the_truth(n, truth, most):
    grid = at(np.linspace(0.02, 0.98, 49))
    errors = [(calibrated(*outcomes(n, seed, truth)).p(grid) - truth(grid[:, 0])) ** 2 for seed in range(12)]
    assert np.mean(errors) < most


def test_a_feature_that_never_differs_does_no_harm():
    features, right = outcomes(60, 2, logistic)
    features[:, 3] = 0.0
    known = calibrated(features, right)
    assert np.isfinite(known.p(features)).all()
    assert known.weights[3] == 0


def test_its_state_brings_it_back():
    for n in (5, 50, 600):
        features, right = outcomes(n, 0, step)
        known = calibrated(features, right)
        again = Calibration.from_state(known.state())
        np.testing.assert_array_equal(again.p(features), known.p(features))
