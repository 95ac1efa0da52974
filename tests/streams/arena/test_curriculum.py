"""Curricula: what is drawn, what answers change, resume bit for bit, and problems whose difficulty ramps."""

import json
import random
from collections import Counter

import pytest

from everlearn.config import build
from everlearn.errors import ConfigError, StateError
from everlearn.registry import find, names
from everlearn.streams.arena.curriculum import Progress, Ramp, Success, Uniform, generate_curriculum
from everlearn.streams.arena.generate import ADVANCED_TYPES, TYPES

SETTINGS = {"none": {}, "ramp": {"n_episodes": 60}, "success": {"window": 4}, "progress": {"window": 3}}


def made(name, **options):
    return build("curriculum", {"name": name, **SETTINGS[name], **options}, "learner.curriculum")


def walk(curriculum, rng, n):
    """Return what is drawn in n episodes for a learner that is right more often the easier the problem is."""
    drawn = []
    for _ in range(n):
        problem_type, difficulty = curriculum.next(rng)
        curriculum.update(problem_type, difficulty, rng.random() > difficulty / 6)
        drawn.append((problem_type, difficulty))
    return drawn


def levels(curriculum, answers):
    """Return the difficulty before each of these answers, and after the last."""
    rng, found = random.Random(0), []
    for answer in answers:
        found.append(curriculum.next(rng)[1])
        curriculum.update("math", found[-1], answer)
    return [*found, curriculum.next(rng)[1]]


def test_all_are_registered():
    assert names("curriculum") == sorted(SETTINGS)
    assert find("curriculum", "ramp") is Ramp


@pytest.mark.parametrize("name", SETTINGS)
def test_a_killed_run_goes_on_bit_for_bit(name):
    whole, rng = made(name), random.Random(3)
    walk(whole, rng, 40)
    stored, rng_state = json.loads(json.dumps(whole.state())), rng.getstate()
    rest = walk(whole, rng, 40)
    resumed = made(name)
    resumed.load_state(stored)
    rng.setstate(rng_state)
    assert walk(resumed, rng, 40) == rest
    assert resumed.state() == whole.state()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_state_is_a_copy_and_drawing_changes_none(name):
    curriculum, rng = made(name), random.Random(0)
    walk(curriculum, rng, 10)
    state = curriculum.state()
    before = json.dumps(state)
    for _ in range(5):
        curriculum.next(rng)
    assert json.dumps(curriculum.state()) == before
    walk(curriculum, rng, 10)
    assert json.dumps(state) == before
    curriculum.load_state(state)
    walk(curriculum, rng, 10)
    assert json.dumps(state) == before


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_drawn_is_of_the_given_types(name):
    drawn = walk(made(name, types=["math", "passage"]), random.Random(0), 200)
    assert {problem_type for problem_type, _ in drawn} == {"math", "passage"}
    assert {difficulty for _, difficulty in drawn} <= {1, 2, 3, 4, 5}


def test_none_draws_all_equally_often():
    curriculum = Uniform(types=(*TYPES, *ADVANCED_TYPES))
    counts = Counter(walk(curriculum, random.Random(1), 15_000))
    assert len(counts) == 75
    assert all(abs(count - 200) < 70 for count in counts.values())
    assert {level for _, level in walk(Uniform(difficulty=(2, 4)), random.Random(1), 50)} == {2, 4}
    assert curriculum.state() == {}


def test_a_ramp_gives_each_level_the_same_time():
    drawn = walk(Ramp(n_episodes=50), random.Random(0), 60)
    assert [difficulty for _, difficulty in drawn] == [1 + k // 10 for k in range(50)] + [5] * 10
    down = Ramp(n_episodes=7, start_difficulty=4, end_difficulty=2)
    assert [down.level_at(k) for k in range(8)] == [4, 4, 4, 3, 3, 2, 2, 2]
    assert [Ramp(n_episodes=1).level_at(k) for k in range(2)] == [1, 5]


def test_success_raises_and_lowers_at_the_bars():
    curriculum = Success(window=4, raise_at=0.75, lower_at=0.25)
    assert levels(curriculum, [1, 1, 0, 1]) == [1, 1, 1, 1, 2]
    assert levels(curriculum, [1, 0, 1, 0, 0]) == [2, 2, 2, 2, 2, 1]  # 0.5 keeps, and the window rolls
    assert levels(curriculum, [0] * 6) == [1] * 7
    assert levels(curriculum, [1] * 20)[-1] == 5
    assert levels(curriculum, [1] * 5) == [5] * 6


def test_success_counts_no_answer_at_another_difficulty():
    curriculum = Success(window=2, start_difficulty=3)
    for _ in range(5):
        curriculum.update("math", 1, True)
    assert curriculum.next(random.Random(0))[1] == 3


def test_success_may_keep_a_level_for_each_type():
    curriculum = Success(types=("math", "logic"), window=2, per_type=True)
    for _ in range(2):
        curriculum.update("math", 1, True)
    assert curriculum.levels_ == {"math": 2, "logic": 1}
    assert set(walk(curriculum, random.Random(0), 2)) <= {("math", 2), ("logic", 1)}


def test_progress_is_the_change_between_two_windows():
    curriculum = Progress(types=("math",), difficulty=(1, 2, 3, 4), window=4)
    for answer in [0, 0, 0, 1, 0, 1, 1, 1, 1]:  # the first one is forgotten
        curriculum.update("math", 1, answer)
    for answer in [1, 1, 0]:  # windows of one
        curriculum.update("math", 2, answer)
    for answer in [1, 1, 1, 1]:
        curriculum.update("math", 3, answer)
    assert curriculum.changes() == {"math 1": 0.75, "math 2": 1.0, "math 3": 0.0, "math 4": 1.0}


def test_progress_draws_in_proportion():
    curriculum = Progress(types=("math",), difficulty=(1, 2, 3), window=4, explore=0.1)
    for level, answers in {1: [0, 0, 1, 1], 2: [1, 0, 0, 0], 3: [0, 0, 0, 0]}.items():
        for answer in answers:
            curriculum.update("math", level, answer)
    rng = random.Random(0)
    counts = Counter(curriculum.next(rng)[1] for _ in range(6000))
    for level, change in {1: 1.0, 2: 0.5, 3: 0.0}.items():
        assert counts[level] / 6000 == pytest.approx(0.1 / 3 + 0.9 * change / 1.5, abs=0.02)


def test_progress_finds_what_can_be_learned():
    def times_met(curriculum, n=600):
        rng, practice = random.Random(5), 0
        for _ in range(n):
            problem_type, level = curriculum.next(rng)
            learnable = (problem_type, level) == ("math", 2)
            practice += learnable
            right = min(1, practice / 60) if learnable else 1.0 if level == 1 else 0.0  # too easy or too hard
            curriculum.update(problem_type, level, rng.random() < right)
        return practice

    assert times_met(Progress()) > 3 * times_met(Uniform())


def test_progress_draws_evenly_where_nothing_changes():
    curriculum = Progress(types=("math",), explore=0.0)
    for level in range(1, 6):
        for _ in range(4):
            curriculum.update("math", level, True)
    rng = random.Random(0)
    assert {curriculum.next(rng)[1] for _ in range(100)} == {1, 2, 3, 4, 5}


def test_a_state_of_other_settings_is_refused():
    with pytest.raises(StateError, match="doesn't fit"):
        Progress(types=("math",)).load_state(Progress(types=("logic",)).state())
    with pytest.raises(StateError, match="doesn't fit"):
        Uniform().load_state(Success().state())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ramp", {"n_episodes": 0}, r"n_episodes.* Got 0"),
        ("ramp", {"start_difficulty": 0}, r"curriculum\.start_difficulty: is no difficulty\. Got 0"),
        ("ramp", {"end_difficulty": 6}, "end_difficulty"),
        ("success", {"raise_at": 1.5}, "raise_at"),
        ("success", {"lower_at": 0.9}, r"is not below raise_at\. Got 0\.9"),
        ("success", {"window": 0}, "window"),
        ("progress", {"window": 0}, "window"),
        ("progress", {"explore": -0.1}, "explore"),
        ("progress", {"difficulty": 7}, "is no difficulty"),
        ("none", {"difficulty": 7}, "is no difficulty"),
        ("none", {"types": ["maths"]}, "Did you mean 'math'"),
        ("success", {"windows": 3}, r"learner\.curriculum\.windows: is unknown"),
    ],
)
def test_bad_settings_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        made(name, **options)


def test_a_ramp_needs_its_length():
    with pytest.raises(ConfigError, match="lacks 'n_episodes'"):
        build("curriculum", {"name": "ramp"}, "learner.curriculum")


def test_a_batch_ramps_over_all_types():
    problems = generate_curriculum(50, 2, 4, types=["math", "deduction"], seed=1)
    assert [problem.difficulty for problem in problems] == [2] * 17 + [3] * 17 + [4] * 16
    assert [problem.type for problem in problems] == ["math", "deduction"] * 25
    assert len({problem.prompt for problem in problems}) == 50
    assert problems == generate_curriculum(50, 2, 4, types=["math", "deduction"], seed=1)
    assert problems != generate_curriculum(50, 2, 4, types=["math", "deduction"], seed=2)
    assert [problem.type for problem in generate_curriculum(5)] == list(TYPES)
    assert [problem.difficulty for problem in generate_curriculum(4, 5, 2)] == [5, 4, 3, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "n_tasks"), ((5, 0), "start_difficulty"), ((5, 1, 1.0), "end_difficulty")],
)
def test_bad_arguments_of_a_batch_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        generate_curriculum(*arguments)
