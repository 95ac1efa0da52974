"""Scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, as tasks for plain modules; nothing is downloaded.

>>> row = DigitsStream().build().tasks[0].train[0]
>>> row["y"].item(), [round(pixel, 4) for pixel in row["x"][:8].tolist()]
(0, [0.0, 0.0, 0.3125, 0.8125, 0.5625, 0.0625, 0.0, 0.0])
"""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits

from everlearn.errors import ConfigError, describe
from everlearn.registry import register
from everlearn.streams.images import (
    ImageSet,
    check_disjoint_images,
    check_mode,
    check_split,
    permuted_tasks,
    split_tasks,
)
from everlearn.streams.sampling import subset
from everlearn.types import Stream, TensorRows

_BRIGHTEST = 16.0


@register("stream", "digits")
@dataclass(frozen=True)
class DigitsStream:
    """The digits as tasks of kind `tensor`: `x` float32 [n, 64] in 0..1, `y` int64 [n].

    Args:
        mode: "split", a few digits a task; or "permuted", all ten a task, pixels shuffled in the task's own way (task 0
            is left as it is).
        n_tasks: number of tasks.
        classes_per_task: digits in a task of mode "split".
        scenario: what `y` is in mode "split": "class" (the default) the digit among all, "domain" its place within the
            task with one shared head, "task" its place with a head for each task. Mode "permuted" is always "domain".
        test_share: share of each digit's images held out for evaluation.
        data_seed: decides which images are held out and how pixels are shuffled.

    Raises:
        ConfigError: if a field is out of range.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (its test set).
    """

    mode: str = "split"
    n_tasks: int = 5
    classes_per_task: int = 2
    scenario: str | None = None
    test_share: float = 0.2
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_mode("digits", self.mode, ("split", "permuted"), self.scenario, self.n_tasks)
        if self.mode == "split":
            check_split("digits", self.n_tasks, self.classes_per_task)
        if not 0 < self.test_share < 1:
            way_out = "Allowed: above 0 and below 1"
            raise ConfigError(describe("stream.digits.test_share", "is out of range", self.test_share, way_out))

    def build(self) -> Stream:
        """Return the stream; a fixed function of the fields."""
        images = self._images()
        if self.mode == "split":
            tasks = split_tasks(images, self.n_tasks, self.classes_per_task, self.scenario or "class")
        else:
            tasks = permuted_tasks(images, self.n_tasks, self.data_seed, "digits")
        return Stream("digits", tasks)

    def _images(self) -> ImageSet:
        digits = load_digits()
        x = torch.from_numpy((digits.images / _BRIGHTEST).astype(np.float32))
        rows = TensorRows(x, torch.from_numpy(digits.target.astype(np.int64)))
        n_test = round(self.test_share * len(rows))
        test = subset(len(rows), n_test, rows.y.tolist(), self.data_seed, "digits", "test")
        train = sorted(set(range(len(rows))) - set(test))
        images = ImageSet(rows.select(train), rows.select(test))
        check_disjoint_images("stream 'digits'", images.train, images.evaluation)
        return images
