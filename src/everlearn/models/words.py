"""Label words: a language model without a head classifies by writing one of the labels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from everlearn.models.causal import CausalObjective
from everlearn.models.tokens import TokenFeatures
from everlearn.types import Row, Rows, Task


@dataclass(frozen=True, eq=False)
class RowsInWords(Sequence):
    """Rows of a classification as prompts that are answered with their label."""

    rows: Rows
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return (in_words(row, self.labels, row["label"]) for row in self.rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [in_words(row, self.labels, row["label"]) for row in self.rows[index]]
        return in_words(self.rows[index], self.labels, self.rows[index]["label"])


class WordsObjective(CausalObjective):
    """Rows of a classification are asked for one of the task's labels; other rows are as a language model has them."""

    def _features(
        self, rows: Rows, task: Task, train_on: str, in_steps: bool, told: Callable[[int], None] | None = None
    ) -> TokenFeatures:
        rows = RowsInWords(rows, task.labels) if task.kind == "classify" else rows
        return super()._features(rows, task, train_on, in_steps, told)


def in_words(row: Row, labels: Sequence[str], label: int) -> Row:
    """Return a row of a classification as a prompt that names the labels, answered with one of them.

    >>> in_words({"text": "It broke."}, ("bad", "good"), 0)
    {'prompt': 'It broke.\\nOne of: bad, good.\\nAnswer:', 'completion': ' bad'}
    """
    text = "\n".join(part for part in (row["text"], row.get("text_pair")) if part)
    return {"prompt": f"{text}\nOne of: {', '.join(labels)}.\nAnswer:", "completion": f" {labels[label]}"}
