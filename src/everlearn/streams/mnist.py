"""MNIST from its own IDX files, as tasks for plain modules: split, permuted or rotated.

With the usual files, `MnistStream(folder=...).build().tasks[0].train[0]` is the first training image of a 0 or a 1:
y = 0, and the first three pixels that are not black are 51, 159 and 253 of 255.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from everlearn.errors import ConfigError, StreamError, describe
from everlearn.registry import register
from everlearn.streams.idx import find_idx, read_idx
from everlearn.streams.images import (
    N_CLASSES,
    ImageSet,
    check_disjoint_images,
    check_mode,
    check_split,
    permuted_tasks,
    rotated_tasks,
    split_tasks,
)
from everlearn.streams.sampling import subset
from everlearn.types import Stream, Task, TensorRows

MODES = ("split", "permuted", "rotated")
_MEAN, _DEVIATION = 0.1307, 0.3081  # of MNIST's training pixels in 0..1


@register("stream", "mnist")
@dataclass(frozen=True)
class MnistStream:
    """MNIST as tasks of kind `tensor`: `x` float32 [n, 784] in 0..1, `y` int64 [n].

    Args:
        folder: holds the four IDX files, gzip or not, under their usual names.
        mode: "split", a few digits a task; "permuted", all ten a task, pixels shuffled in the task's own way (task 0 is
            left as it is); "rotated", all ten a task, turned counter-clockwise.
        n_tasks: number of tasks; None: 5 for split, 10 for permuted and rotated, or as many as `degrees`.
        classes_per_task: digits in a task of mode "split".
        scenario: what `y` is in mode "split": "class" (the default) the digit among all, "domain" its place within the
            task with one shared head, "task" its place with a head for each task. The other modes are always "domain".
        degrees: the angles of mode "rotated"; None: 180 * task / n_tasks, so that task 0 is left as it is.
        n_train, n_eval: images a task, at most, each digit with its share; None: all.
        normalize: subtract 0.1307 and divide by 0.3081, the mean and deviation of MNIST's training pixels.
        data_seed: decides how pixels are shuffled and which images are taken.

    Raises:
        ConfigError: if a field is out of range.

    Cost: a permuted or rotated task of all the images holds 220 MB; task 0 shares the base images.
    Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document recognition,
    1998. Permuted as in J. Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, 2017; rotated
    after D. Lopez-Paz and M. Ranzato, Gradient episodic memory, 2017. Departs: angles are evenly spaced, not drawn.
    """

    folder: str
    mode: str = "split"
    n_tasks: int | None = None
    classes_per_task: int = 2
    scenario: str | None = None
    degrees: list[float] | None = None
    n_train: int | None = None
    n_eval: int | None = None
    normalize: bool = False
    data_seed: int = 0

    def __post_init__(self) -> None:
        n_tasks = 1 if self.n_tasks is None else self.n_tasks
        check_mode("mnist", self.mode, MODES, self.scenario, n_tasks)
        if self.mode == "split":
            check_split("mnist", self._n_tasks(), self.classes_per_task)
        if self.degrees is not None:
            self._check_degrees(self.degrees)
        for name, value in (("n_train", self.n_train), ("n_eval", self.n_eval)):
            if value is not None and value < 1:
                raise ConfigError(describe(f"stream.mnist.{name}", "is too small", value, "Allowed: 1 or more"))

    def _check_degrees(self, degrees: list[float]) -> None:
        where = "stream.mnist.degrees"
        if self.mode != "rotated":
            raise ConfigError(describe(where, "belongs to mode rotated", degrees, "Leave it out, or set mode: rotated"))
        if not degrees or not all(math.isfinite(angle) for angle in degrees) or len(set(degrees)) < len(degrees):
            raise ConfigError(describe(where, "must be different finite angles", degrees, "One for each task"))
        if self.n_tasks not in (None, len(degrees)):
            way_out = f"Give {self.n_tasks} angles, or leave n_tasks out"
            raise ConfigError(describe(where, "differs from n_tasks", degrees, way_out))

    def _n_tasks(self) -> int:
        if self.n_tasks is not None:
            return self.n_tasks
        if self.degrees is not None:
            return len(self.degrees)
        return N_CLASSES // self.classes_per_task if self.mode == "split" else 10

    def build(self) -> Stream:
        """Read the files and return the stream; a fixed function of the files and the fields.

        Raises:
            StreamError: if a file is missing, cut off or of another kind, or images and labels don't match.
        """
        folder = Path(self.folder).expanduser()
        train, evaluation = self._read(folder, "train"), self._read(folder, "t10k")
        check_disjoint_images("stream 'mnist'", train, evaluation)
        if self.mode == "split":  # the limits count images a task, so they are taken after the split
            images = ImageSet(_scaled(train), _scaled(evaluation))
            whole = split_tasks(images, self._n_tasks(), self.classes_per_task, self.scenario or "class")
            tasks = tuple(self._limited(task) for task in whole)
        else:
            images = ImageSet(
                _scaled(self._take(train, self.n_train, "train")), _scaled(self._take(evaluation, self.n_eval, "eval"))
            )
            tasks = self._changed(images)
        if self.normalize:
            tasks = tuple(_normalized(task) for task in tasks)
        return Stream("mnist", tasks)

    def _changed(self, images: ImageSet) -> tuple[Task, ...]:
        n_tasks = self._n_tasks()
        if self.mode == "permuted":
            return permuted_tasks(images, n_tasks, self.data_seed, "mnist")
        return rotated_tasks(images, self.degrees or [180.0 * number / n_tasks for number in range(n_tasks)])

    def _limited(self, task: Task) -> Task:
        train = self._take(task.train, self.n_train, f"train {task.name}")
        evaluation = self._take(task.evaluation, self.n_eval, f"eval {task.name}")
        return Task(name=task.name, kind="tensor", train=train, evaluation=evaluation, labels=task.labels)

    def _take(self, rows: TensorRows, n_wanted: int | None, part: str) -> TensorRows:
        if n_wanted is None or n_wanted >= len(rows):
            return rows
        return rows.select(subset(len(rows), n_wanted, rows.y.tolist(), self.data_seed, "mnist", part))

    def _read(self, folder: Path, part: str) -> TensorRows:
        x = read_idx(find_idx(folder, f"{part}-images", 3), 3)
        path = find_idx(folder, f"{part}-labels", 1)
        y = read_idx(path, 1)
        if len(x) != len(y):
            got = f"{len(x)} images and {len(y)} labels"
            raise StreamError(describe(str(path), "images and labels differ in number", got, "Use files of one set"))
        if len(y) and int(y.max()) >= N_CLASSES:
            raise StreamError(describe(str(path), "a label is no digit", int(y.max()), "Allowed: 0 to 9"))
        return TensorRows(x, y.long())


def _scaled(rows: TensorRows) -> TensorRows:
    return TensorRows(rows.x.to(torch.float32) / 255, rows.y)


def _normalized(task: Task) -> Task:
    train, evaluation = (TensorRows((rows.x - _MEAN) / _DEVIATION, rows.y) for rows in (task.train, task.evaluation))
    return Task(name=task.name, kind="tensor", train=train, evaluation=evaluation, labels=task.labels)
