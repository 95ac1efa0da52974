"""Answers with the steps that lead to them: `12 + 3 = 15`, then `Answer: 15` on a line of its own."""

from everlearn.models.chat import as_messages
from everlearn.types import Row

LEARN = ("auto", "answer", "steps")
MARK = "Answer:"  # the answer that counts stands behind the last one


def in_steps(learn: str, chat: bool) -> bool:
    """Return whether steps are learned; chat: whether rows are put as turns of a conversation."""
    return learn == "steps" or (learn == "auto" and chat)


def with_steps(row: Row) -> Row:
    """Return a prompt row whose right answer is its `explanation`, then `Answer:` and the answer; without one as it is.

    The answer of a conversation is its last message. What a completion begins with, a space say, stays its beginning.
    """
    if not row.get("explanation"):
        return row
    *before, last = as_messages(row)
    worked = f"{row['explanation'].strip()}\n{MARK} {last['content'].strip()}"
    if row.get("messages") is not None:
        return {**row, "messages": [*before, {**last, "content": worked}]}
    completion = row["completion"]
    space = completion[: len(completion) - len(completion.lstrip())]
    return {**row, "completion": space + worked}


def final_answer(text: str) -> str:
    """Return what stands behind the last `Answer:` of a text; all of it where there is none."""
    return text.rpartition(MARK)[2].strip()
