"""Which problems are asked when: each once a pass, old ones by their ratio."""

import pytest

from everlearn.errors import StreamError
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.rl.problems import Problems
from everlearn.types import Examples, Group, Mixture
from support.tasks import prompt_task, text_task


@pytest.fixture(scope="module")
def objective(llama):
    return load_model(ModelConfig(str(llama), AdapterConfig("full")), [prompt_task(0)], 0).objective


def mixed(ratio):
    """A task's rows, and old ones of two other tasks."""
    task, old, older = (prompt_task(number) for number in range(3))
    return Mixture(
        (
            Group((Examples(task, task.train),)),
            Group((Examples(old, old.train), Examples(older, older.train[:3])), ratio),
        )
    )


def test_a_pass_asks_each_problem_once_and_the_next_in_another_order(objective):
    problems = Problems(Mixture.of(prompt_task(0)), objective, (0,), ask_again=True)
    asked = [[address for address, _, _ in problems.asked(number, 5)] for number in range(24)]
    every = [address for of_iteration in asked for address in of_iteration]
    passes = [every[12 * i : 12 * i + 12] for i in range(10)]
    assert all(sorted(each) == [(0, row) for row in range(12)] for each in passes)
    assert len({tuple(each) for each in passes}) == 10
    again = Problems(Mixture.of(prompt_task(0)), objective, (0,), ask_again=True)
    assert [address for address, _, _ in again.asked(17, 5)] == asked[17]  # of its number alone
    other = Problems(Mixture.of(prompt_task(0)), objective, (1,), ask_again=True)
    assert [address for address, _, _ in other.asked(0, 5)] != asked[0]


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.5])
def test_old_problems_are_asked_again_by_their_ratio_with_their_own_task(ratio, objective):
    problems = Problems(mixed(ratio), objective, (0,), ask_again=True)
    asked = [one for number in range(30) for one in problems.asked(number, 4)]
    old = [(address, task, row) for address, task, row in asked if address[0] == 1]
    assert abs(len(old) - 120 * ratio) <= 1
    assert {task.name for _, task, _ in old} == {"add_1", "add_2"}
    for (_, place), task, row in old:
        assert row == (prompt_task(1).train + prompt_task(2).train[:3])[place]
        assert task.name == ("add_1" if place < 12 else "add_2")
    assert problems.encoded is None
    assert not problems.as_they_are(0, 4)


def test_or_they_are_learned_as_they_stand(objective):
    problems = Problems(mixed(0.5), objective, (0,), ask_again=False)
    assert all(address[0] == 0 for address, _, _ in problems.asked(3, 4))
    rows = [address for number in range(30) for address in problems.as_they_are(number, 4)]
    assert len(rows) == 60
    batch = problems.encoded.__getitems__(rows[:6])
    assert len(batch["input_ids"]) == 6


def test_texts_are_learned_as_they_stand_and_cannot_be_asked(objective):
    task, texts = prompt_task(0), text_task(0)
    beside = Mixture((Group((Examples(task, task.train),)), Group((Examples(texts, texts.train),), 0.5)))
    problems = Problems(beside, objective, (0,), ask_again=True)
    assert len(problems.asked(0, 4)) == 4
    assert len(problems.as_they_are(0, 4)) == 2
    with pytest.raises(StreamError, match="can't be answered"):
        Problems(Mixture.of(texts), objective, (0,), ask_again=True)
