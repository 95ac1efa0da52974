"""Answers with steps: what is learned of a row, and which part of an answer counts."""

from dataclasses import replace

import pytest

from everlearn.evaluation.score import is_right
from everlearn.models.causal import LEAST_ROOM, CausalObjective
from everlearn.models.steps import final_answer, in_steps, with_steps
from everlearn.types import IGNORED, Task
from support.chat import chat_tokenizer
from support.models import byte_tokenizer

ROW = {"prompt": "7 pens and 5 more?\nAnswer:", "completion": " 12", "explanation": "7 + 5 = 12"}
BARE = {"prompt": "2 pens?\nAnswer:", "completion": " 2"}
TASK = Task("sums", "prompt", [], [ROW, BARE], max_new_tokens=4)


def objective_of(learn: str, chat: bool = False) -> CausalObjective:
    objective = CausalObjective(chat_tokenizer("chatml") if chat else byte_tokenizer(), 256, chat=chat)
    objective.in_steps = in_steps(learn, chat)
    return objective


def written(objective, feature) -> str:
    return objective.answer_of([label for label in feature["labels"] if label != IGNORED])


@pytest.mark.parametrize("chat", [False, True])
def test_the_steps_and_then_the_answer_are_the_target(chat):
    objective, plain = objective_of("steps", chat), objective_of("answer", chat)
    explained, bare = objective.encode([ROW, BARE], TASK)
    assert written(objective, explained) == "7 + 5 = 12\nAnswer: 12"
    worked = {"prompt": ROW["prompt"], "completion": " 7 + 5 = 12\nAnswer: 12"}
    assert explained == plain.encode([worked], TASK)[0]
    assert bare["labels"] == plain.encode([BARE], TASK)[0]["labels"]
    assert written(plain, plain.encode([ROW], TASK)[0]) == "12"
    assert written(objective, objective.encode_answers([ROW], TASK)[0]) == "12"


def test_the_answer_of_a_conversation_is_its_last_message():
    messages = [{"role": "user", "content": "7 and 5?"}, {"role": "assistant", "content": "12"}]
    worked = with_steps({"messages": messages, "explanation": " 7 + 5 = 12 "})
    assert worked["messages"] == [messages[0], {"role": "assistant", "content": "7 + 5 = 12\nAnswer: 12"}]
    assert messages[1]["content"] == "12"
    assert with_steps(BARE) is BARE
    assert with_steps({**BARE, "explanation": ""})["completion"] == " 2"


@pytest.mark.parametrize(
    ("text", "answer"),
    [("7 + 5 = 12\nAnswer: 12", "12"), ("12", "12"), ("Answer: 3; no.\nAnswer: 4\n", "4"), ("it is 4. Answer:", "")],
)
def test_what_stands_behind_the_last_mark_counts(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize("verifier", [None, "arena"])
def test_an_answer_with_steps_is_right_where_steps_are_learned(verifier):
    task, given = replace(TASK, verifier=verifier), "7 + 5 = 12\nAnswer: 12"
    assert is_right(task, given, ROW, objective_of("steps"))
    assert is_right(task, "12", ROW, objective_of("steps"))
    assert not is_right(task, "7 + 5 = 12\nAnswer: 13", ROW, objective_of("steps"))
    assert not is_right(task, given, ROW, objective_of("answer"))


def test_there_is_room_for_the_steps():
    long = {**ROW, "explanation": "7 + 5 = 12; " * 5}
    task = replace(TASK, evaluation=[long, BARE])
    n_tokens = len(objective_of("answer")._ids(["7 + 5 = 12; " * 5 + "\nAnswer: 12"])[0])
    assert objective_of("answer").answer_room(task) == 4
    assert n_tokens * 1.2 < objective_of("steps").answer_room(task) <= n_tokens * 1.3 + 1
    assert objective_of("steps").answer_room(replace(task, evaluation=[BARE])) == 4
    assert objective_of("steps").answer_room(replace(task, max_new_tokens=200)) == 200
    assert objective_of("steps").answer_room(TASK) == LEAST_ROOM


def test_steps_are_learned_where_asked_and_by_itself_where_problems_are_turns():
    assert [in_steps(learn, False) for learn in ("auto", "answer", "steps")] == [False, False, True]
    assert [in_steps(learn, True) for learn in ("auto", "answer", "steps")] == [True, False, True]
