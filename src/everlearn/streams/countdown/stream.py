"""Countdown as a stream for supervised learning: a task an operator group, planted solutions as answers.

>>> row = CountdownStream(groups=("0",), n_train=2, n_eval=1, max_number=9).build().tasks[0].train[0]
>>> row["prompt"], row["completion"]
('Numbers 2 2 3 use + target 7.\\n', '<answer>2 + 2 + 3</answer>')
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from everlearn.errors import ConfigError, check_choice, describe
from everlearn.registry import register
from everlearn.streams.countdown.draw import Problems, draw_problems
from everlearn.streams.countdown.groups import Space
from everlearn.streams.countdown.prompts import PROMPTS, answer_of, prompt_of
from everlearn.streams.countdown.verify import OPEN
from everlearn.types import Row, Stream, Task


@register("stream", "countdown")
@dataclass(frozen=True)
class CountdownStream:
    """Operator groups one after another; answers are checked by the `countdown` verifier, so that any solution counts.

    Args:
        groups: `0` (+), `1` (+ -), `2` (+ - *), `3` (+ - * /), `pmm`, `pmd`, `mmd`, `amd`, or operators such as `+*`,
            the newest last; in the order of the tasks.
        n_train: training items a task.
        n_eval: evaluation items a task.
        sizes: how many numbers a problem has, 3 to 6; several are mixed evenly.
        min_number, max_number: range of the numbers.
        min_target, max_target: range of the target.
        require_new_operator: only problems that can't be solved without the group's newest operator.
        prompt: `short`, or `instruct` for models that follow instructions.
        tags: `both`: the model writes `<answer>…</answer>`; `none`: the prompt ends in `<answer>`, and the model writes
            the expression alone, which small models learn more easily.
        data_seed: which items are drawn, from 0.

    Raises:
        ConfigError: if a field is out of its range.
    """

    groups: tuple[str | int, ...] = ("0", "1", "2", "3")
    n_train: int = 300
    n_eval: int = 100
    sizes: tuple[int, ...] = (3,)
    min_number: int = 1
    max_number: int = 20
    min_target: int = 1
    max_target: int = 100
    require_new_operator: bool = False
    prompt: str = "short"
    tags: str = "both"
    data_seed: int = 0

    def __post_init__(self) -> None:
        for group in self.groups:
            self._space(str(group))
        for name, value, least in (
            ("n_train", self.n_train, 1),
            ("n_eval", self.n_eval, 1),
            ("data_seed", self.data_seed, 0),
        ):
            if type(value) is not int or value < least:
                way_out = f"Give a whole number of at least {least}"
                raise ConfigError(describe(f"countdown.{name}", "is out of range", value, way_out))
        check_choice("countdown.prompt", self.prompt, PROMPTS)
        check_choice("countdown.tags", self.tags, ("both", "none"))

    def build(self) -> Stream:
        """Return the stream. No two items of a task are the same problem, and no evaluation item of any task stands in
        the training rows of any.

        Raises:
            StreamError: if a group has too few different problems.

        Cost: about 0.1 s for the default sizes.
        """  # fmt: skip
        return Stream("countdown", tuple(self._task(str(group)) for group in self.groups))

    def _task(self, group: str) -> Task:
        space = self._space(group)
        problems, notes = draw_problems(space, self.n_train, self.n_eval, self.data_seed)
        rows = {split: [self._row(*one) for one in _mixed(parts, space.operators)] for split, parts in problems.items()}
        return Task(
            name=group,
            kind="prompt",
            train=rows["train"],
            evaluation=rows["test"],
            verifier="countdown",
            notes=tuple(notes),
        )

    def _space(self, group: str) -> Space:
        return Space(
            group, tuple(self.sizes), self.min_number, self.max_number, self.min_target, self.max_target,
            self.require_new_operator,
        )  # fmt: skip

    def _row(self, numbers: list[int], target: int, operators: str, solution: str) -> Row:
        question = prompt_of(numbers, target, operators, self.prompt)
        prompt, completion = (question, answer_of(solution)) if self.tags == "both" else (question + OPEN, solution)
        return {
            "prompt": prompt, "completion": completion, "numbers": numbers, "target": target, "operators": operators,
        }  # fmt: skip


def _mixed(parts: Sequence[Problems], operators: str) -> list[tuple[list[int], int, str, str]]:
    """Return (numbers, target, operators, solution) of all problems, the sizes in turn as far as each goes."""
    columns = [
        list(
            zip(
                part.numbers.tolist(),
                part.targets.tolist(),
                [operators] * len(part),
                part.solutions(operators),
                strict=True,
            )
        )
        for part in parts
    ]
    longest = max(map(len, columns))
    return list(chain.from_iterable([column[i] for column in columns if i < len(column)] for i in range(longest)))
