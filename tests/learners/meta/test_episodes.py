import pytest
import torch

from everlearn.errors import StreamError
from everlearn.learners.meta.config import MetaConfig
from everlearn.learners.meta.episodes import (
    ReplayedStream,
    TaskEpisodes,
    Trajectories,
    are_alike,
    draw_tasks,
    episodes_of,
    stacked,
)
from everlearn.models.adapters import Adapters
from everlearn.models.objectives import TensorObjective
from everlearn.types import Task, TensorRows


def numbered(number, n=12):
    """A task whose rows tell their task and their place."""
    rows = TensorRows(100.0 * number + torch.arange(n).float().reshape(n, 1), torch.zeros(n, 1))
    return Task(f"task_{number}", "tensor", rows, rows)


@pytest.fixture
def objective():
    return TensorObjective(Adapters(torch.nn.Linear(1, 1)))


TASKS = [numbered(number) for number in range(3)]


def rows_of(batch):
    return batch["x"].flatten().int().tolist()


def test_support_and_query_are_different_rows_of_one_task(objective):
    config = MetaConfig(n_support=4, n_query=6, meta_batch_size=3, adaptation_steps=2)
    episodes = TaskEpisodes(TASKS, objective, config, 0).at(5)
    assert sorted(rows_of(e.query)[0] // 100 for e in episodes) == [0, 1, 2]
    for episode in episodes:
        support, query = rows_of(episode.support[0]), rows_of(episode.query)
        assert [rows_of(batch) for batch in episode.support] == [support, support]
        assert (len(set(support)), len(set(query)), set(support) & set(query)) == (4, 6, set())
        assert len({row // 100 for row in support + query}) == 1


def test_inner_batches_are_dealt_in_turn(objective):
    config = MetaConfig(n_support=4, n_query=1, meta_batch_size=1, adaptation_steps=3, inner_batch_size=3)
    (episode,) = TaskEpisodes(TASKS, objective, config, 0).at(0)
    dealt = [row for batch in episode.support for row in rows_of(batch)]
    assert [len(batch["x"]) for batch in episode.support] == [3, 3, 3]
    assert len(set(dealt[:4])) == 4
    assert dealt == (dealt[:4] * 3)[:9]


def test_joint_training_takes_the_same_rows_without_an_inner_loop(objective):
    config = MetaConfig(n_support=4, n_query=6, meta_batch_size=2)
    joint = MetaConfig(algorithm="joint", n_support=4, n_query=6, meta_batch_size=2)
    for ours, control in zip(
        TaskEpisodes(TASKS, objective, config, 0).at(3), TaskEpisodes(TASKS, objective, joint, 0).at(3), strict=True
    ):
        assert control.support == ()
        assert rows_of(control.query) == rows_of(ours.support[0]) + rows_of(ours.query)


@pytest.mark.parametrize("algorithm", ["maml", "oml", "mer"])
def test_a_step_is_a_function_of_the_seed_and_its_number(algorithm, objective):
    config = MetaConfig(algorithm=algorithm, adaptation_steps=3)
    if algorithm != "mer":
        config = MetaConfig(algorithm=algorithm, adaptation_steps=3, n_support=4, n_query=4)
    one, other = (episodes_of(TASKS, objective, config, 7) for _ in range(2))
    for step in range(9):
        one.at(step)
    wanted = [[rows_of(batch) for batch in episode.batches] for episode in one.at(8)]
    assert [[rows_of(batch) for batch in episode.batches] for episode in other.at(8)] == wanted
    assert [[rows_of(batch) for batch in episode.batches] for episode in one.at(2)] != wanted
    another = episodes_of(TASKS, objective, config, 8)
    assert [[rows_of(batch) for batch in episode.batches] for episode in another.at(8)] != wanted


@pytest.mark.parametrize("algorithm", ["oml", "anml"])
def test_a_trajectory_goes_through_its_tasks_row_by_row(algorithm, objective):
    config = MetaConfig(algorithm=algorithm, n_support=4, n_query=2, meta_batch_size=2, adaptation_steps=3)
    (episode,) = Trajectories(TASKS, objective, config, 0).at(1)
    learned = [rows_of(batch) for batch in episode.support]
    assert [len(rows) for rows in learned] == [1] * 6
    tasks = [rows[0] // 100 for rows in learned]
    assert tasks == [tasks[0]] * 3 + [tasks[3]] * 3
    assert tasks[0] != tasks[3]
    judges = rows_of(episode.query)
    known = {rows[0] for rows in learned} & set(judges)
    if algorithm == "anml":
        assert judges[:6] == [rows[0] for rows in learned]
        assert [row // 100 for row in judges[6:8]] != [row // 100 for row in judges[8:]]
    else:
        assert {row // 100 for row in judges} == set(tasks)
        assert not known


def test_anml_is_judged_by_rows_of_all_tasks_too(objective):
    config = MetaConfig(algorithm="anml", n_query=2, meta_batch_size=1, adaptation_steps=3)
    trajectories = Trajectories(TASKS, objective, config, 0)
    pairs = set()
    for step in range(40):
        (episode,) = trajectories.at(step)
        judges = rows_of(episode.query)
        assert len(judges) == 3 + 2
        pairs.add((judges[0] // 100, judges[-1] // 100))
    n_tasks = len(TASKS)
    assert len(pairs) == n_tasks * n_tasks


@pytest.mark.parametrize("algorithm", ["maml", "reptile", "oml"])
def test_rows_that_the_steps_do_not_reach_are_not_drawn(algorithm, objective):
    config = MetaConfig(
        algorithm=algorithm, n_support=9, n_query=1, meta_batch_size=1, adaptation_steps=3, inner_batch_size=2
    )
    (episode,) = episodes_of(TASKS, objective, config, 0).at(0)
    assert [len(rows_of(batch)) for batch in episode.support] == [2, 2, 2]
    assert len({row for batch in episode.support for row in rows_of(batch)}) == config.n_learned == 6


def test_mer_sees_each_row_once_among_rows_of_the_past(objective):
    config = MetaConfig(algorithm="mer", meta_batch_size=3, adaptation_steps=4, memory_size=5)
    stream = ReplayedStream(TASKS, objective, config, 0)
    seen: list[int] = []
    for step in range(len(stream)):
        episodes = stream.at(step)
        present = rows_of(episodes[0].query)
        for episode in episodes:
            rows = [rows_of(batch)[0] for batch in episode.support]
            assert len(rows) == len(set(rows)) == min(4, step + 1)
            assert set(rows) <= {*present, *seen}
            assert present[0] in rows
        seen += present
    assert seen != sorted(seen)
    assert [sorted(seen[12 * i : 12 * i + 12]) for i in range(3)] == [
        [100 * i + n for n in range(12)] for i in range(3)
    ]
    with pytest.raises(StreamError, match="the stream has ended"):
        stream.at(len(stream))


def test_no_task_comes_twice_before_all_have_come():
    generator = torch.Generator().manual_seed(0)
    drawn = draw_tasks(3, MetaConfig(meta_batch_size=7), generator)
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]
    assert len(drawn) == 7


def test_too_few_rows_are_refused(objective):
    with pytest.raises(StreamError, match="too few training rows for 13 at once"):
        TaskEpisodes(TASKS, objective, MetaConfig(n_support=10, n_query=3), 0).at(0)


def test_alike_episodes_are_stacked(objective):
    config = MetaConfig(n_support=4, n_query=2, meta_batch_size=2, adaptation_steps=1)
    episodes = TaskEpisodes(TASKS, objective, config, 0).at(0)
    assert are_alike(episodes)
    together = stacked(episodes)
    assert together.support[0]["x"].shape == (2, 4, 1)
    assert torch.equal(together.query["x"][1], episodes[1].query["x"])
    shorter = TaskEpisodes(TASKS, objective, MetaConfig(n_support=3, n_query=2, adaptation_steps=1), 0).at(0)
    assert not are_alike([*episodes, *shorter])
