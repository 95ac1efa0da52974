"""What a model that learns online answers to rows, and whether that is right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from everlearn.evaluation.generate import generate_greedily
from everlearn.evaluation.score import is_right
from everlearn.models.objectives import to_device
from everlearn.streams.labels import tag_names
from everlearn.types import Row, Task

if TYPE_CHECKING:
    from everlearn.way import Run

OUTSIDE = "O"  # the tag of a word that was not read


class Answering:
    """Answers of a run's model to rows of a task: texts, labels, lists of tags, or numbers.

    A row that was answered when it came, before its right answer did, has that as `answered`.
    """

    def __init__(self, run: "Run", task: Task):
        self.run, self.task = run, task
        self._room = run.model.objective.answer_room(task) if task.kind == "prompt" else 0

    def answers(self, rows: Sequence[Row]) -> list[Any]:
        """Return the answer to each row; the one given before to those that have one."""
        asked = [row for row in rows if "answered" not in row]
        found = iter(self.again(asked) if asked else ())
        return [row["answered"] if "answered" in row else next(found) for row in rows]

    def again(self, rows: Sequence[Row]) -> list[Any]:
        """Return the answer to each row as the model is now; None where it knows no label yet."""
        network = self.run.model.network
        if network.training:  # going through all modules takes a millisecond, so it stays so until the next step
            network.eval()
        with torch.no_grad():  # without autocast: for one prompt, casting the weights at each token doubles the time
            if self.task.kind == "prompt":
                return self._texts(rows)
            known = self.task.outputs and self.task.name in self.run.model.adapters.task_labels
            return self._outputs(rows) if known else [None] * len(rows)

    def is_right(self, answer: Any, row: Row) -> float | None:
        """Return whether an answer is right, 0 or 1; of tags the share that is; of numbers None."""
        if self.task.kind == "score":
            return None
        if self.task.kind == "prompt":
            return is_right(self.task, answer, row, self.run.model.objective)
        if self.task.kind == "classify":
            return float(answer == self.task.labels[row["label"]])
        right = tag_names(row["tags"], self.task.labels)
        hits = [guess == tag for guess, tag in zip(answer, right, strict=True) if tag is not None]
        return sum(hits) / len(hits)

    def _texts(self, rows: Sequence[Row]) -> list[str]:
        model, device = self.run.model, self.run.accelerator.device
        questions = model.objective.questions(list(rows), self._room)
        return generate_greedily(model.network, model.objective, questions, self._room, device)

    def _outputs(self, rows: Sequence[Row]) -> list[Any]:
        objective, adapters = self.run.model.objective, self.run.model.adapters
        if self.task.kind == "tag":
            unanswered = [{**row, "tags": [0] * len(row["tokens"])} for row in rows]
        else:
            unanswered = [{**row, "score" if self.task.kind == "score" else "label": 0} for row in rows]
        features = objective.encode(unanswered, self.task)
        batch = to_device(objective.collate(objective.take(features, range(len(rows)))), self.run.accelerator.device)
        outputs = objective.forward(self.run.model.network, batch)
        if self.task.kind == "score":
            scale = adapters.scales[self.task.name]
            return [scale.restored(number) for number in outputs.logits.float().flatten().tolist()]
        name_of = {column: label for label, column in adapters.columns.items()}  # of the shared head
        guesses = [name_of[column] for column in outputs.logits.argmax(-1).tolist()]
        if self.task.kind == "classify":
            return guesses
        found: list[list[str]] = [[] for _ in rows]
        for owner, guess in zip(outputs.owners.tolist(), guesses, strict=True):
            found[owner].append(guess)
        places = [dict(zip(feature["read"], own, strict=True)) for feature, own in zip(features, found, strict=True)]
        return [
            [at.get(word, OUTSIDE) for word in range(len(row["tokens"]))] for at, row in zip(places, rows, strict=True)
        ]
