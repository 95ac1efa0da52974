"""Streams whose concept drifts: when, how, and that a row is a function of its position."""

import doctest
from itertools import islice

import pytest

from everlearn.config import build, load_recipe
from everlearn.errors import ConfigError
from everlearn.registry import find
from everlearn.streams import drift
from everlearn.streams.arena.generate import distinct_problems, problem_at
from everlearn.streams.arena.problem import verify
from everlearn.streams.checking import digest_of
from everlearn.streams.drift import DriftPattern, DriftStream

TYPES = ("comparison-opposite", "causal-inverted", "sequence-twice", "logic-sentence", "math-question", "comparison")


def concepts(pattern: DriftPattern, n_rows: int) -> list[int]:
    return [pattern.concept_at(position) for position in range(n_rows)]


def test_the_example_in_the_header_is_row_0():
    result = doctest.testmod(drift)
    assert result.attempted
    assert not result.failed


def test_sudden_drifts_come_at_their_points_and_the_last_concept_stays():
    pattern = DriftPattern("sudden", n_concepts=3, period=10)
    assert concepts(pattern, 40) == [0] * 10 + [1] * 10 + [2] * 20
    assert pattern.drift_points(40) == [10, 20]
    assert pattern.drift_points(20) == [10]


def test_recurring_concepts_come_and_go():
    pattern = DriftPattern("recurring", n_concepts=2, period=10)
    assert concepts(pattern, 40) == [0] * 10 + [1] * 10 + [0] * 10 + [1] * 10
    assert pattern.drift_points(40) == [10, 20, 30]


@pytest.mark.parametrize(("kind", "returning"), [("gradual", 1), ("recurring", 0)])
def test_a_new_concept_fades_in_evenly(kind, returning):
    counts = [0] * 100
    for seed in range(300):
        found = concepts(DriftPattern(kind, n_concepts=2, period=100, window=99, seed=seed), 300)
        assert found[:100] == [0] * 100
        assert found[199] == 1
        assert set(found[200:]) <= {1, returning}
        counts = [count + concept for count, concept in zip(counts, found[100:200], strict=True)]
    for row in (0, 24, 49, 74, 98):
        assert counts[row] / 300 == pytest.approx((row + 1) / 100, abs=0.1)


def test_a_row_depends_on_its_position_alone():
    stream = DriftStream(concepts=TYPES, pattern="gradual", period=20, window=15, n_rows=120, difficulty=None)
    rows = list(stream.rows())
    assert len(rows) == 120
    assert list(stream.rows(start=77)) == rows[77:]
    assert stream.row_at(99) == rows[99]
    assert [number for _, number in rows] == concepts(stream.timing(), 120)
    assert list(islice(DriftStream(**{**vars(stream), "data_seed": 1}).rows(), 20)) != rows[:20]


def test_a_comparison_turns_to_its_other_end():
    for index in range(50):
        plain = problem_at("comparison", index, difficulty=3)
        turned, _ = DriftStream(concepts=("comparison-opposite", "math"), difficulty=3).row_at(index)
        chain = plain.content.split(" > ")
        assert turned["prompt"] == plain.prompt
        assert chain.index(turned["completion"].strip()) == len(chain) - 1 - chain.index(plain.answer)


def test_yes_becomes_no_and_unknown_stays():
    seen = set()
    for index in range(50):
        plain = problem_at("causal", index, difficulty=1)
        turned, _ = DriftStream(concepts=("causal-inverted", "math")).row_at(index)
        seen.add((plain.completion, turned["completion"]))
    assert seen == {(" yes", " no"), (" no", " yes"), (" unknown", " unknown")}


def test_a_sequence_takes_its_last_step_twice():
    row, _ = DriftStream(concepts=("sequence-twice", "math")).row_at(0)
    assert "16, 24, 32, 40" in row["prompt"]
    assert row["completion"] == " 56"


def test_formats_change_what_counts_as_right():
    sentence, _ = DriftStream(concepts=("math-sentence", "math")).row_at(0)
    question, _ = DriftStream(concepts=("math-question", "math")).row_at(0)
    plain = problem_at("math", 0, difficulty=1)
    assert sentence["completion"] == f" It is {plain.answer}"
    assert verify(sentence["completion"], sentence)
    assert not verify(plain.completion, sentence)
    assert question["prompt"].startswith("Q: ")
    assert question["prompt"].endswith("\nA:")
    assert question["completion"] == plain.completion


def test_each_concept_is_a_task_with_its_rows_of_the_stream_and_its_own_evaluation():
    stream = DriftStream(concepts=TYPES, period=20, n_rows=140, n_eval=30)
    tasks = stream.build().tasks
    assert [task.name for task in tasks] == list(TYPES)
    assert [len(task.train) for task in tasks] == [20, 20, 20, 20, 20, 40]
    assert [row for task in tasks for row in task.train] == [row for row, _ in stream.rows()]
    learned = {digest_of(row) for task in tasks for row in task.train}
    for task in tasks:
        assert len({digest_of(row) for row in task.evaluation}) == 30
        assert not learned & {digest_of(row) for row in task.evaluation}
        assert all(verify(row["completion"], row) for row in [*task.train, *task.evaluation])
        assert all(row["completion"].strip() in row.get("choices", [row["completion"].strip()]) for row in task.train)
    assert [row["prompt"] for row in tasks[0].evaluation] == [row["prompt"] for row in tasks[-1].evaluation]


def test_contents_of_training_rows_are_in_another_pool_than_those_of_evaluation():
    trained = {problem_at("comparison", index, difficulty=1).content for index in range(2000)}
    asked = {problem.content for problem in distinct_problems("comparison", 100, levels=(1,), split="evaluation")}
    assert not trained & asked


def test_a_recipe_names_it():
    assert find("stream", "drift") is DriftStream
    options = {"name": "drift", "concepts": ["causal", "causal-inverted"], "pattern": "recurring", "period": 100}
    assert build("stream", options, "stream").drift_points() == list(range(100, 2000, 100))
    assert load_recipe({"stream": {**options, "order": ["causal-inverted"]}}).build_stream().period == 100


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"concepts": ("comparison",)}, r"drift\.concepts \(their number\): is out of range. Got 1"),
        ({"concepts": ("comparison", "comparison")}, "a concept stands twice"),
        ({"concepts": ("comparision", "math")}, "Did you mean 'comparison'"),
        ({"concepts": ("math", "math-opposite")}, "has no such rule. Got 'math-opposite'. Rules of math: sentence"),
        ({"concepts": ("math", "math-sentense")}, "Did you mean 'sentence'"),
        ({"pattern": "suden"}, "Did you mean 'sudden'"),
        ({"window": 5}, r"drift\.window of a sudden drift: is out of range. Got 5"),
        ({"pattern": "gradual"}, r"drift\.window of a gradual drift: is out of range. Got 0"),
        ({"pattern": "recurring", "window": 1001}, r"drift\.window of a recurring drift: .* Got 1001"),
        ({"period": 0}, r"drift\.period: is out of range. Got 0"),
        ({"n_rows": 1000}, r"drift\.n_rows: is out of range. Got 1000"),
        ({"n_eval": 0}, r"drift\.n_eval"),
        ({"difficulty": 6}, r"drift\.difficulty"),
    ],
)
def test_a_bad_field_is_named_with_its_value(fields, message):
    with pytest.raises(ConfigError, match=message):
        DriftStream(**fields)
