"""Small images as tasks for plain modules: split by class, permuted, or rotated."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from everlearn.errors import ConfigError, StreamError, describe, nearest
from everlearn.seeds import generator_for
from everlearn.types import Task, TensorRows

SCENARIOS = ("task", "domain", "class")
N_CLASSES = 10
_ROTATED_AT_ONCE = 10_000  # images


@dataclass(frozen=True)
class ImageSet:
    """Training and evaluation images [n, height, width] in 0..1, and their classes [n], 0 to 9."""

    train: TensorRows
    evaluation: TensorRows


def check_mode(stream: str, mode: str, modes: tuple[str, ...], scenario: str | None, n_tasks: int) -> None:
    """Check the options that image streams share.

    Raises:
        ConfigError: naming the field.
    """
    if mode not in modes:
        way_out = f"{nearest(mode, modes)}Allowed: {', '.join(modes)}"
        raise ConfigError(describe(f"stream.{stream}.mode", "is no mode", mode, way_out))
    if n_tasks < 1:
        raise ConfigError(describe(f"stream.{stream}.n_tasks", "is too small", n_tasks, "Allowed: 1 or more"))
    allowed = SCENARIOS if mode == "split" else ("domain",)
    if scenario is not None and scenario not in allowed:
        way_out = f"Allowed with mode {mode}: {', '.join(allowed)}"
        raise ConfigError(describe(f"stream.{stream}.scenario", "is no scenario of this mode", scenario, way_out))


def check_split(stream: str, n_tasks: int, classes_per_task: int) -> None:
    """Check that ten classes are enough for the split.

    Raises:
        ConfigError: if a task has fewer than two classes, or the tasks want more than there are.
    """
    where = f"stream.{stream}.classes_per_task"
    if classes_per_task < 2:
        raise ConfigError(describe(where, "is too small", classes_per_task, "Allowed: 2 or more"))
    if n_tasks * classes_per_task > N_CLASSES:
        got = f"{n_tasks} tasks of {classes_per_task}"
        raise ConfigError(describe(where, "there are ten classes only", got, "Lower n_tasks or classes_per_task"))


def split_tasks(images: ImageSet, n_tasks: int, classes_per_task: int, scenario: str) -> tuple[Task, ...]:
    """Return a task for each group of consecutive classes.

    `scenario` says what `y` is: "class" the digit itself, to be told among all the classes of the stream; "domain" and
    "task" the digit's place within its task, 0 to classes_per_task-1, where "domain" names the labels alike in all
    tasks (one shared head) and "task" by the digits (a head for each task).
    """
    tasks = []
    for number in range(n_tasks):
        classes = list(range(number * classes_per_task, (number + 1) * classes_per_task))
        first = 0 if scenario == "class" else classes[0]
        parts = [_of_classes(part, classes, first) for part in (images.train, images.evaluation)]
        labels = {
            "class": tuple(str(digit) for digit in range(n_tasks * classes_per_task)),
            "domain": tuple(str(place) for place in range(classes_per_task)),
            "task": tuple(str(digit) for digit in classes),
        }[scenario]
        name = "split_" + "_".join(str(digit) for digit in classes)
        tasks.append(Task(name=name, kind="tensor", train=parts[0], evaluation=parts[1], labels=labels))
    return tuple(tasks)


def _of_classes(part: TensorRows, classes: list[int], first: int) -> TensorRows:
    chosen = torch.isin(part.y, torch.tensor(classes))
    return TensorRows(part.x[chosen].flatten(1), part.y[chosen] - first)


def permuted_tasks(images: ImageSet, n_tasks: int, *purpose: object) -> tuple[Task, ...]:
    """Return tasks that each shuffle the pixels in their own fixed way; task 0 leaves them as they are."""
    n_pixels = images.train.x[0].numel()
    tasks = []
    for number in range(n_tasks):
        order = torch.randperm(n_pixels, generator=generator_for(*purpose, "permutation", number))
        parts = [
            TensorRows(part.x.flatten(1)[:, order] if number else part.x.flatten(1), part.y)
            for part in (images.train, images.evaluation)
        ]
        tasks.append(_ten_class_task(f"permuted_{number}", *parts))
    return tuple(tasks)


def rotated_tasks(images: ImageSet, degrees: list[float]) -> tuple[Task, ...]:
    """Return a task for each angle, counter-clockwise; corners that turn in are black."""
    tasks = []
    for angle in degrees:
        parts = [TensorRows(rotate(part.x, angle).flatten(1), part.y) for part in (images.train, images.evaluation)]
        tasks.append(_ten_class_task(f"rotated_{angle:g}", *parts))
    return tuple(tasks)


def rotate(x: torch.Tensor, degrees: float) -> torch.Tensor:
    """Return images [n, height, width] turned counter-clockwise about their middle, bilinear, zero outside.

    Cost: four reads and one write a pixel, 10,000 images at a time.
    """
    if degrees % 360 == 0:
        return x
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    height, width = x.shape[1:]
    # grid_sample measures both axes from -1 to 1: the ratio keeps the turn rigid where height and width differ
    turn = torch.tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
    turned = torch.empty_like(x)
    for start in range(0, len(x), _ROTATED_AT_ONCE):
        part = x[start : start + _ROTATED_AT_ONCE, None]
        grid = F.affine_grid(turn.expand(len(part), 2, 3), list(part.shape), align_corners=False)
        turned[start : start + len(part)] = F.grid_sample(part, grid, align_corners=False)[:, 0]
    return turned


def _ten_class_task(name: str, train: TensorRows, evaluation: TensorRows) -> Task:
    labels = tuple(str(digit) for digit in range(N_CLASSES))
    return Task(name=name, kind="tensor", train=train, evaluation=evaluation, labels=labels)


def check_disjoint_images(where: str, train: TensorRows, evaluation: TensorRows) -> None:
    """Check that no image is in both.

    Raises:
        StreamError: with the number of shared images and the first pair.
    """
    seen = {image.tobytes(): index for index, image in enumerate(train.x.numpy())}
    shared = [
        (seen[key], index) for index, image in enumerate(evaluation.x.numpy()) if (key := image.tobytes()) in seen
    ]
    if shared:
        what = f"training and evaluation share images, the first are number {shared[0][0]} and {shared[0][1]}"
        raise StreamError(describe(where, what, len(shared), "Give other evaluation images"))
