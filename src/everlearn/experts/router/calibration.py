"""p(reuse): the chance that an expert is as good as a new one, estimated from the outcomes so far."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression, isotonic_regression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

# of a candidate; the first are used first, one for each 10 outcomes
FEATURES = ("similarity", "margin", "log_uses", "context", "log_experts")
PLATT_FROM, ISOTONIC_FROM = 20, 300
OUTCOMES_A_FEATURE = 10
N_BINS = 5
MIDDLES = (np.arange(N_BINS) + 0.5) / N_BINS
PRIOR_WEIGHT = 2  # outcomes that the prior of a bin counts for
SHRINKAGE = 10  # outcomes of the share of right ones that are added to an isotonic curve, so that it's never 0 or 1
N_FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """p of features: a curve, or without knots the logistic function, of their weighted sum.

    Attributes:
        kind: bins, platt or isotonic. weights: [len(FEATURES)]. bias: added to the sum. x, y: the curve's knots.
    """

    kind: str
    weights: np.ndarray
    bias: float
    x: np.ndarray
    y: np.ndarray

    def p(self, features: np.ndarray) -> np.ndarray:
        """Return p of candidates [n], from features [n, len(FEATURES)]."""
        score = features @ self.weights + self.bias
        return np.interp(score, self.x, self.y) if len(self.x) else 1 / (1 + np.exp(-score))

    def state(self) -> dict[str, Any]:
        """Return it as tensors and JSON values."""
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("weights", "x", "y")}
        return {"kind": self.kind, "bias": self.bias, **arrays}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Calibration":
        """Undo `state`."""
        return cls(state["kind"], state["weights"].numpy(), state["bias"], state["x"].numpy(), state["y"].numpy())


def calibrated(features: np.ndarray, right: np.ndarray) -> Calibration:
    """Return the calibration that outcomes give.

    - below 20, or while all are alike: five bins of the similarity, each with a beta prior of weight 2 and the bin's
      middle as mean, made monotone; between the middles p is linear;
    - from 20: logistic regression on standardised features (Platt scaling), C = 1;
    - from 300: isotonic regression of Platt's score, shrunk towards the share of right ones, where its log loss in
      five-fold cross-validation is below Platt's.

    Args:
        features: [n, len(FEATURES)]. right: whether reuse was as good as a new expert, [n].

    Cost: 2 ms; from 300 outcomes on 20 ms.
    Source: Platt 1999, Probabilistic outputs for support vector machines; Zadrozny & Elkan 2002, Transforming
        classifier scores into accurate multiclass probability estimates.
    """
    right = right.astype(float)
    if len(right) < PLATT_FROM or right.min() == right.max():
        return _bins(features[:, 0], right)
    platt = _platt(features, right)
    if len(right) < ISOTONIC_FROM or min(right.sum(), len(right) - right.sum()) < N_FOLDS:
        return platt
    held_out = np.empty((2, len(right)))
    for train, test in StratifiedKFold(N_FOLDS).split(features, right):
        fold = _platt(features[train], right[train])
        held_out[:, test] = fold.p(features[test]), _isotonic(fold, features[train], right[train]).p(features[test])
    of_platt, of_isotonic = (log_loss(right, p) for p in held_out)
    return platt if of_platt <= of_isotonic else _isotonic(platt, features, right)


def _bins(similarity: np.ndarray, right: np.ndarray) -> Calibration:
    place = np.clip((similarity * N_BINS).astype(int), 0, N_BINS - 1)
    n = np.bincount(place, minlength=N_BINS) + PRIOR_WEIGHT
    means = (np.bincount(place, right, minlength=N_BINS) + PRIOR_WEIGHT * MIDDLES) / n
    weights = np.eye(len(FEATURES))[0]
    return Calibration("bins", weights, 0.0, MIDDLES, isotonic_regression(means, sample_weight=n.astype(float)))


def _platt(features: np.ndarray, right: np.ndarray) -> Calibration:
    n_used = min(len(FEATURES), max(1, len(right) // OUTCOMES_A_FEATURE))
    used = features[:, :n_used]
    mean, deviation = used.mean(0), used.std(0)
    deviation[deviation < 1e-6] = 1.0
    model = LogisticRegression(C=1.0).fit((used - mean) / deviation, right)
    weights = np.zeros(len(FEATURES))
    weights[:n_used] = model.coef_[0] / deviation
    return Calibration("platt", weights, float(model.intercept_[0] - weights[:n_used] @ mean), np.zeros(0), np.zeros(0))


def _isotonic(platt: Calibration, features: np.ndarray, right: np.ndarray) -> Calibration:
    score = features @ platt.weights + platt.bias
    curve = IsotonicRegression().fit(score, right)
    n = len(right)
    shrunk = (n * curve.y_thresholds_ + SHRINKAGE * right.mean()) / (n + SHRINKAGE)
    return Calibration("isotonic", platt.weights, platt.bias, curve.X_thresholds_, shrunk)
