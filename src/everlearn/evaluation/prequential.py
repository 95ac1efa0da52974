"""Prequential scores: each row of a stream is a test before it is learned from.

All are kept twice: over the whole stream, and faded, where each row's weight is multiplied by `fading` with every row
that follows, so that about the last 1 / (1 - fading) of them count.

Source: Gama, Sebastião and Rodrigues 2013, On evaluating stream learning algorithms, Machine Learning 90.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from seqeval.metrics.sequence_labeling import get_entities

from everlearn.errors import check_number
from everlearn.evaluation.stats import Interval, wilson_interval, within
from everlearn.streams.labels import tag_names
from everlearn.types import Row

Z = 1.959964  # of a normal distribution, two-sided at 95%
UNKNOWN = ""  # what is answered before any label is known


class Confusion:
    """How often each class was answered to each, rows faded.

    Args:
        fading: 1 for none.

    Memory: the square of the number of classes, in float64. Checked against river's metrics where nothing fades, which
        have no fading.
    """

    def __init__(self, fading: float = 1.0) -> None:
        check_number("prequential.fading", fading, above=0, high=1)
        self.fading = fading
        self.names: list[str] = []
        self.counts = np.zeros((0, 0))  # [right class, answer]
        self._places: dict[str, int] = {}

    def add(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Take the (right class, answer) pairs of a row."""
        self.counts *= self.fading
        for right, answer in pairs:
            place = self._place(right), self._place(answer)  # first: they may make room
            self.counts[place] += 1.0

    def accuracy(self) -> float:
        """Return the share of right answers."""
        return float(np.trace(self.counts) / self.counts.sum()) if self.counts.any() else 0.0

    def kappa(self) -> float:
        """Return Cohen's kappa, (p - p_chance) / (1 - p_chance): 0 for guesses by the classes' shares, 1 for all right.

        0 where there is but one class.
        """
        total = self.counts.sum()
        if not total:
            return 0.0
        chance = float(self.counts.sum(0) @ self.counts.sum(1) / total**2)
        return (self.accuracy() - chance) / (1 - chance) if chance < 1 else 0.0

    def macro_f1(self) -> float:
        """Return the mean F1 over the classes that came or were answered."""
        found, there, answered = np.diag(self.counts), self.counts.sum(1), self.counts.sum(0)
        known = (there + answered > 0) & np.array([name != UNKNOWN for name in self.names], dtype=bool)
        return float((2 * found[known] / (there + answered)[known]).mean()) if known.any() else 0.0

    def largest(self) -> str:
        """Return the class that came most often so far."""
        return self.names[int(self.counts.sum(1).argmax())] if self.names else UNKNOWN

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs: JSON and a tensor."""
        return {"names": list(self.names), "counts": torch.from_numpy(self.counts.copy())}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the one that returned `state` stood."""
        self.names = list(state["names"])
        self.counts = state["counts"].numpy().copy()
        self._places = {name: place for place, name in enumerate(self.names)}

    def _place(self, name: str) -> int:
        if name not in self._places:
            self._places[name] = len(self.names)
            self.names.append(name)
            self.counts = np.pad(self.counts, (0, 1))
        return self._places[name]


class Ratio:
    """A sum over rows by another, rows faded, with an interval that takes rows as independent.

    Source: of the interval: the linearised variance of a ratio estimator (Cochran 1977, Sampling Techniques, 6.4).
    """

    def __init__(self, fading: float = 1.0) -> None:
        check_number("prequential.fading", fading, above=0, high=1)
        self.fading = fading
        self.sums = np.zeros(5)  # of a, b, a·a, a·b, b·b

    def add(self, a: float, b: float) -> None:
        """Take a row's share of both sums."""
        self.sums *= self.fading
        self.sums += a, b, a * a, a * b, b * b

    def value(self) -> float:
        """Return Σa / Σb; 0 where there is nothing to divide by."""
        return float(self.sums[0] / self.sums[1]) if self.sums[1] else 0.0

    def interval(self) -> Interval:
        """Return it with its 95% interval, NaN ends where there is none."""
        if not self.sums[1]:
            return Interval(0.0, math.nan, math.nan)
        ratio = self.value()
        variance = self.sums[2] - 2 * ratio * self.sums[3] + ratio**2 * self.sums[4]
        half = Z * math.sqrt(max(0.0, variance)) / self.sums[1]
        return Interval(ratio, ratio - half, ratio + half)


class Prequential(Protocol):
    """Scores of a stream of one kind of rows. `main` names the score that an interval is given for."""

    main: str

    def add(self, row: Row, answer: Any, labels: Sequence[str]) -> None:
        """Take a row and what was answered to it."""

    def scores(self) -> dict[str, Any]:
        """Return the numbers over the `whole` stream and `faded`, by name."""

    def interval(self, n: int) -> Interval:
        """Return `main` over the whole stream, of `n` rows, with a 95% interval that takes rows as independent."""

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs: JSON and tensors."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the one that returned `state` stood."""


class PrequentialLabels:
    """Accuracy, Cohen's kappa and macro F1 of labels; `majority`: what the class that was most frequent until then
    would have had right."""  # fmt: skip

    main = "accuracy"

    def __init__(self, fading: float) -> None:
        self.whole, self.faded = Confusion(), Confusion(fading)
        self.majority, self.faded_majority = Confusion(), Confusion(fading)

    def add(self, row: Row, answer: str | None, labels: Sequence[str]) -> None:
        right = labels[row["label"]]
        largest = self.whole.largest()
        for confusion, given in zip(self._all(), (answer or UNKNOWN,) * 2 + (largest,) * 2, strict=True):
            confusion.add([(right, given)])

    def scores(self) -> dict[str, Any]:
        return {name: _of_labels(*pair) for name, pair in self._pairs().items()}

    def interval(self, n: int) -> Interval:
        return wilson_interval(round(float(np.trace(self.whole.counts))), n)

    def state(self) -> dict[str, Any]:
        return {"confusions": [confusion.state() for confusion in self._all()]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for confusion, own in zip(self._all(), state["confusions"], strict=True):
            confusion.load_state(own)

    def _all(self) -> tuple[Confusion, ...]:
        return self.whole, self.faded, self.majority, self.faded_majority

    def _pairs(self) -> dict[str, tuple[Confusion, Confusion]]:
        return {"whole": (self.whole, self.majority), "faded": (self.faded, self.faded_majority)}


class PrequentialTags:
    """F1 of entities (as seqeval finds them), and accuracy, kappa and macro F1 of tags; `majority` as for labels."""

    main = "entity_f1"

    def __init__(self, fading: float) -> None:
        self.tags = PrequentialLabels(fading)
        self.entities = {"whole": Ratio(), "faded": Ratio(fading)}

    def add(self, row: Row, answer: Sequence[str] | None, labels: Sequence[str]) -> None:
        right = tag_names(row["tags"], labels)
        given = [UNKNOWN] * len(right) if answer is None else answer
        pairs = [(tag, guess) for tag, guess in zip(right, given, strict=True) if tag is not None]
        largest = self.tags.whole.largest()
        for confusion in (self.tags.whole, self.tags.faded):
            confusion.add(pairs)
        for confusion in (self.tags.majority, self.tags.faded_majority):
            confusion.add([(tag, largest) for tag, _ in pairs])
        there, answered = (set(get_entities([pair[side] or "O" for pair in pairs])) for side in (0, 1))
        for ratio in self.entities.values():
            ratio.add(len(there & answered), (len(there) + len(answered)) / 2)

    def scores(self) -> dict[str, Any]:
        found = self.tags.scores()
        return {name: {"entity_f1": self.entities[name].value(), **own} for name, own in found.items()}

    def interval(self, n: int) -> Interval:
        return within(self.entities["whole"].interval(), (0.0, 1.0))

    def state(self) -> dict[str, Any]:
        return {"tags": self.tags.state(), "entities": {name: own.sums.tolist() for name, own in self.entities.items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.tags.load_state(state["tags"])
        for name, sums in state["entities"].items():
            self.entities[name].sums = np.array(sums)


class PrequentialNumbers:
    """Mean absolute and root mean squared error of numbers; `running_mean`: the former of the mean of the rows before.

    Rows that came before anything could be answered don't count.
    """

    main = "mean_error"

    def __init__(self, fading: float) -> None:
        self.ratios = {
            name: {part: Ratio(factor) for part, factor in (("whole", 1.0), ("faded", fading))}
            for name in ("mean_error", "squared_error", "running_mean", "number")
        }

    def add(self, row: Row, answer: float | None, labels: Sequence[str]) -> None:
        right, before = row["score"], self.ratios["number"]["whole"].value()
        if answer is not None:
            found = {
                "mean_error": abs(answer - right), "squared_error": (answer - right) ** 2,
                "running_mean": abs(before - right),
            }  # fmt: skip
            for name, value in found.items():
                for ratio in self.ratios[name].values():
                    ratio.add(value, 1.0)
        for ratio in self.ratios["number"].values():
            ratio.add(right, 1.0)

    def scores(self) -> dict[str, Any]:
        return {part: self._of(part) for part in ("whole", "faded")}

    def interval(self, n: int) -> Interval:
        return within(self.ratios["mean_error"]["whole"].interval(), (0.0, math.inf))

    def state(self) -> dict[str, Any]:
        return {
            name: {part: ratio.sums.tolist() for part, ratio in parts.items()} for name, parts in self.ratios.items()
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, parts in state.items():
            for part, sums in parts.items():
                self.ratios[name][part].sums = np.array(sums)

    def _of(self, part: str) -> dict[str, float]:
        return {
            "mean_error": self.ratios["mean_error"][part].value(),
            "root_mean_squared_error": math.sqrt(self.ratios["squared_error"][part].value()),
            "running_mean": self.ratios["running_mean"][part].value(),
        }


SCORES = {"classify": PrequentialLabels, "score": PrequentialNumbers, "tag": PrequentialTags}


def _of_labels(confusion: Confusion, majority: Confusion) -> dict[str, float]:
    return {
        "accuracy": confusion.accuracy(),
        "kappa": confusion.kappa(),
        "macro_f1": confusion.macro_f1(),
        "majority": majority.accuracy(),
    }
