"""Progress in the terminal: a bar while a task is learned, a line when it is scored."""

import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from everlearn.listener import Listener
from everlearn.types import Episode, Score, Task

SMOOTHING = 0.95  # of the loss shown
RECENT = 20  # episodes that an online run's accuracy and loss are shown over


class ProgressBars(Listener):
    """Draws a run on a console; use it as a context manager, again where the run goes on. Without a terminal it prints
    the lines only."""  # fmt: skip

    def __init__(self, console: Console, title: str = ""):
        self.console = console
        self.told: list[str] = []  # the notes that were shown
        self.title = ""
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._bar: int | None = None
        self._reads = False  # whether the bar is of rows that are encoded
        self._loss: float | None = None
        self._answers = False  # whether the bar is of a learner that tells how many of its answers were right
        self._name = ""
        self._started = 0.0
        self._scores: list[str] = []
        self._when = "at first"  # scores were taken that follow no training
        self.part(title)

    def __enter__(self) -> "ProgressBars":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._drop()
        self._bars.stop()
        self._name, self._when = "", "now"

    def part(self, name: str) -> None:
        self._flush()
        self._drop()
        self._name, self.title = "", f"[bold]{name}[/bold] " if name else ""

    def encoding(self, task: Task, done: int, n_rows: int) -> None:
        if done < n_rows and not self._reads:
            self._flush()
            self._drop()
            self._bar, self._reads = (
                self._bars.add_task(f"{self.title}reading {task.name}", total=n_rows, told=""),
                True,
            )
        if self._reads:
            self._bars.update(self._bar, completed=done)

    def training(self, task: Task, n_steps: int, done: int) -> None:
        self._flush()
        self._drop()
        self._loss, self._answers, self._name, self._started = None, False, task.name, time.perf_counter()
        self._bar = self._bars.add_task(f"{self.title}learning {task.name}", total=n_steps, completed=done, told="")

    def step(self, done: int, loss: float) -> None:
        self._loss = loss if self._loss is None else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        if self._bar is not None and not self._answers:
            self._bars.update(self._bar, completed=done, told=f"loss {self._loss:.3f}")

    def iteration(self, done: int, success: float) -> None:
        self._answers = True
        if self._bar is not None:
            self._bars.update(self._bar, completed=done, told=f"right {success:.0%}")

    def consolidating(self, task: Task) -> None:
        if self._bar is not None:
            self._bars.update(self._bar, description=f"{self.title}consolidating {task.name}")

    def scoring(self, task: Task) -> None:
        if self._bar is not None:
            self._bars.update(self._bar, description=f"{self.title}scoring {task.name}")

    def scored(self, score: Score) -> None:
        unit = " nats/token" if score.metric in ("token_log_likelihood", "negative_kl") else ""
        self._scores.append(f"{score.task} {score.value:z.2f}{unit}")

    def inform(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def note(self, text: str) -> None:
        self.told.append(text)
        self.console.print(text, markup=False, highlight=False)

    def _flush(self) -> None:
        """Print the scores that followed the last training."""
        if self._scores:
            learned = (
                f"learned {self._name} in {time.perf_counter() - self._started:.0f} s" if self._name else self._when
            )
            self.console.print(f"{self.title}{learned}: {', '.join(self._scores)}", highlight=False)
        self._scores = []

    def _drop(self) -> None:
        if self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar, self._reads = None, False


class OnlineBar(Listener):
    """Draws an online run on a console: a bar with the rolling accuracy and loss, a line at each scoring."""

    def __init__(self, console: Console):
        self.console = console
        self._bar = Progress(
            TextColumn("learning online"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[recent]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._recent: deque[Episode] = deque(maxlen=RECENT)

    def __enter__(self) -> "OnlineBar":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def episode(self, done: int, n_episodes: int | None, episode: Episode) -> None:
        if self._task is None or done == 1:
            self._recent.clear()
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task("", total=n_episodes, recent="")
        self._recent.append(episode)
        rights = [one.right_before for one in self._recent if one.right_before is not None]
        right = f"right {sum(rights) / len(rights):.2f}  " if rights else ""
        loss = sum(one.loss for one in self._recent) / len(self._recent)
        self._bar.update(self._task, completed=done, recent=f"{right}loss {loss:.3f}")

    def prequential(self, done: int, metric: str, whole: float, faded: float) -> None:
        told = f"after {done} rows: {metric.replace('_', ' ')} {whole:.3f}, of late {faded:.3f}"
        self.console.print(told, highlight=False)

    def evaluated(self, done: int, accuracy: float) -> None:
        self.console.print(f"after {done} episodes: {accuracy:.3f} of the held-out problems right", highlight=False)

    def inform(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)
