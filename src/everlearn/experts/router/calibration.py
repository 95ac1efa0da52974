"""p(reuse): the chance that an expert is as good as a new one, estimated from the outcomes so far."""

from collections.abc import Callable
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
BINS = np.linspace(0, 1, 6)
MIDDLES = (BINS[:-1] + BINS[1:]) / 2
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
    n_rarer = min(right.sum(), len(right) - right.sum())
    if len(right) >= ISOTONIC_FROM and n_rarer >= N_FOLDS:
        losses = {fit: log_loss(right, _held_out(fit, features, right)) for fit in (_isotonic, _platt)}
        return min(losses, key=losses.__getitem__)(features, right)
    return _platt(features, right)


def _bins(similarity: np.ndarray, right: np.ndarray) -> Calibration:
    place = np.clip(np.digitize(similarity, BINS) - 1, 0, len(MIDDLES) - 1)
    n = np.bincount(place, minlength=len(MIDDLES)) + PRIOR_WEIGHT
    means = (np.bincount(place, right, minlength=len(MIDDLES)) + PRIOR_WEIGHT * MIDDLES) / n
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


def _isotonic(features: np.ndarray, right: np.ndarray) -> Calibration:
    platt = _platt(features, right)
    score = features @ platt.weights + platt.bias
    curve = IsotonicRegression(out_of_bounds="clip").fit(score, right)
    n = len(right)
    shrunk = (n * curve.y_thresholds_ + SHRINKAGE * right.mean()) / (n + SHRINKAGE)
    return Calibration("isotonic", platt.weights, platt.bias, curve.X_thresholds_, shrunk)


def _held_out(
    fit: Callable[[np.ndarray, np.ndarray], Calibration], features: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Return p of each outcome from the others' four folds in five, in which right ones are spread evenly."""
    found = np.empty(len(right))
    for train, test in StratifiedKFold(N_FOLDS).split(features, right):
        found[test] = fit(features[train], right[train]).p(features[test])
    return found
