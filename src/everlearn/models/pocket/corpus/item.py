"""One question with its answer, before it is dressed in a layout, a cue and a wrapper."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A question and its short answer.

    `steps` is the worked line that some documents show before the answer; `more` holds further (question, answer) pairs
    about the same facts, which some documents ask in a row.
    """

    question: str
    answer: str
    steps: str = ""
    more: tuple[tuple[str, str], ...] = ()
