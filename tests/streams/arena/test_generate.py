"""Items by number: determinism, random access, pools, batches, and the example in each file's header."""

import hashlib
import importlib
import json
import re
import textwrap
from collections import Counter
from importlib import resources

import pytest
from transformers import AutoTokenizer

from everlearn.errors import ConfigError, StreamError
from everlearn.registry import find
from everlearn.streams.arena.generate import (
    ADVANCED_TYPES,
    SPLITS,
    TYPES,
    distinct_problems,
    generate_batch,
    levels_of,
    pool_of,
    problem_at,
)
from everlearn.streams.arena.problem import CUE, verify
from everlearn.streams.arena.stream import MAX_NEW_TOKENS

ALL_TYPES = (*TYPES, *ADVANCED_TYPES)
# Hashes of items as they were first released: runs that were measured with them rest on their staying the same.
RECORDED = {
    ("comparison", "train"): "de7a6ecb0b27b194",
    ("comparison", "validation"): "f24bfa8ae550128b",
    ("comparison", "evaluation"): "43cc5c33c6008f06",
    ("sequence", "train"): "923f479b070aeccf",
    ("sequence", "validation"): "317a718c6218782c",
    ("sequence", "evaluation"): "a7fde506b074cbf4",
    ("causal", "train"): "e97788cd63598301",
    ("causal", "validation"): "7f42326cfc8ed2ec",
    ("causal", "evaluation"): "feb6fda430cfaabe",
    ("math", "train"): "c7beb69c004fab5f",
    ("math", "validation"): "42959671f559b0fa",
    ("math", "evaluation"): "c104071ca4889955",
    ("logic", "train"): "c0b898ebb2d74aaa",
    ("logic", "validation"): "4d0eecad482baacd",
    ("logic", "evaluation"): "16c1a91421312623",
    ("multistep", "train"): "800bb467ffe126ff",
    ("multistep", "validation"): "94d658aae87a4782",
    ("multistep", "evaluation"): "f5e0d7f02664fce1",
    ("algebra", "train"): "cb83a99b5b0c2f78",
    ("algebra", "validation"): "9b466692a3810923",
    ("algebra", "evaluation"): "a18757fd1c221e58",
    ("probability", "train"): "509aff61a290bb2f",
    ("probability", "validation"): "2d807634abc3085c",
    ("probability", "evaluation"): "df2361a504eced13",
    ("geometry", "train"): "163e713bd951c2b5",
    ("geometry", "validation"): "ab33ece70521c2df",
    ("geometry", "evaluation"): "16780d9f516e68e1",
    ("code", "train"): "7df540b4621b5323",
    ("code", "validation"): "e5e62657efb11b5d",
    ("code", "evaluation"): "4c7b7f12b22b32b2",
    ("deduction", "train"): "18520dc52e4c7ad0",
    ("deduction", "validation"): "b9a838274f4a9ab7",
    ("deduction", "evaluation"): "66642dfe5863f9c4",
    ("counterfactual", "train"): "8f22da059dfe11df",
    ("counterfactual", "validation"): "7f6fac38340bf602",
    ("counterfactual", "evaluation"): "6d4938ae9168fd72",
    ("analogy", "train"): "3feb65fe5a4313e4",
    ("analogy", "validation"): "0d63f45923c95675",
    ("analogy", "evaluation"): "21d355c7cca40308",
    ("passage", "train"): "db88aabb59a62410",
    ("passage", "validation"): "8cbd3ec28667d2d4",
    ("passage", "evaluation"): "0da51f3fd14ce329",
    ("extraction", "train"): "c9f1efa24c65b84d",
    ("extraction", "validation"): "3821830930d42be8",
    ("extraction", "evaluation"): "808cbeae1ff0f8df",
}


@pytest.mark.parametrize(("type_name", "split"), RECORDED)
def test_items_never_change(type_name, split):
    digest = hashlib.sha256()
    for seed in (0, 3):
        for difficulty in range(1, 6):
            for index in (*range(40), 10**9):
                problem = problem_at(type_name, index, difficulty=difficulty, seed=seed, split=split)
                digest.update(json.dumps(problem).encode())
    assert digest.hexdigest()[:16] == RECORDED[type_name, split]


@pytest.mark.parametrize("type_name", ALL_TYPES)
def test_the_header_shows_item_0(type_name):
    module = importlib.import_module(find("problem", type_name).__module__)
    example, answer = re.search(r'"train":\n\n(.*)\n\nIts answer: (.+?)\n', module.__doc__, re.DOTALL).groups()
    problem = problem_at(type_name, 0, difficulty=1, seed=0, split="train")
    assert textwrap.dedent(example) == problem.prompt
    assert answer == problem.answer


@pytest.mark.parametrize("type_name", ALL_TYPES)
def test_an_item_depends_on_its_number_only(type_name):
    row = [problem_at(type_name, index, difficulty=3, seed=7, split="evaluation") for index in range(20)]
    assert problem_at(type_name, 13, difficulty=3, seed=7, split="evaluation") == row[13]
    assert [problem_at(type_name, index, difficulty=3, seed=8, split="evaluation") for index in range(20)] != row
    assert problem_at(type_name, 10**12, difficulty=3) == problem_at(type_name, 10**12, difficulty=3)


@pytest.mark.parametrize("type_name", ALL_TYPES)
def test_every_item_is_in_the_pool_of_its_content(type_name):
    for split in SPLITS:
        problems = [problem_at(type_name, i, difficulty=1 + i % 5, seed=i % 3, split=split) for i in range(150)]
        assert {pool_of(type_name, problem.content) for problem in problems} == {split}


def test_pools_have_their_shares():
    shares = Counter(pool_of("math", str(number)) for number in range(10_000))
    assert shares["train"] / 10_000 == pytest.approx(0.7, abs=0.02)
    assert shares["validation"] / 10_000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("type_name", ALL_TYPES)
def test_seeds_share_no_more_than_chance(type_name):
    def contents(seed: int, start: int = 0) -> list[str]:
        return [problem_at(type_name, start + i, difficulty=4, seed=seed).content for i in range(1000)]

    first, second = contents(0), contents(1)
    chance = len(set(first) & set(contents(0, start=1000)))  # two stretches of one seed
    assert len(set(first) & set(second)) <= 1.5 * chance + 10
    assert (
        sum(a == b for a, b in zip(first, second[1:], strict=False)) < 10
    )  # item i + 1 of seed 0 is not item i of seed 1


def test_many_items_of_all_types_and_difficulties():
    problems = generate_batch(2000 * len(ALL_TYPES), types=ALL_TYPES, seed=5)
    assert Counter((problem.type, problem.difficulty) for problem in problems) == {
        (name, level): 400 for name in ALL_TYPES for level in range(1, 6)
    }
    for problem in problems:
        assert problem.prompt.endswith(CUE)
        assert problem.prompt.isascii()
        assert "{" not in problem.prompt
        assert problem.answer == problem.answer.strip() != ""
        assert len(problem.prompt.split()) <= {1: 45, 2: 50, 3: 60, 4: 75, 5: 100}[problem.difficulty]


@pytest.mark.parametrize("type_name", ADVANCED_TYPES)
def test_an_advanced_type_has_ten_thousand_items_to_train_on(type_name):
    drawn = generate_batch(20_000 if type_name == "probability" else 16_000, types=[type_name], seed=1)
    assert len({problem.content for problem in drawn}) >= 10_000


@pytest.mark.parametrize("type_name", ADVANCED_TYPES)
def test_advanced_types_are_explained_in_steps_and_verified(type_name):
    for problem in generate_batch(500, types=[type_name], seed=2):
        assert "{" not in problem.prompt
        assert "; " in problem.explanation or problem.difficulty == 1
        assert verify(problem.completion, problem.row())
        assert sum(verify(choice, problem.row()) for choice in problem.choices) == bool(problem.choices)


def test_the_stream_lets_the_pocket_model_write_every_answer():
    tokenizer = AutoTokenizer.from_pretrained(str(resources.files("everlearn.models") / "pocket"))
    answers = [problem.completion for problem in generate_batch(3000, types=ALL_TYPES, seed=3)]
    assert max(map(len, tokenizer(answers, add_special_tokens=False)["input_ids"])) <= MAX_NEW_TOKENS


def test_mix_alternates_types_and_no_mix_groups_the_same_problems():
    mixed, grouped = generate_batch(23, seed=1), generate_batch(23, mix=False, seed=1)
    assert [problem.type for problem in mixed[:6]] == [*TYPES, TYPES[0]]
    assert [problem.type for problem in grouped] == [n for n in TYPES for _ in range(5 if n in TYPES[:3] else 4)]
    assert sorted(grouped, key=str) == sorted(mixed, key=str)


def test_batches_continue_each_other():
    assert generate_batch(30, seed=2) == generate_batch(12, seed=2) + generate_batch(18, seed=2, start=12)
    assert generate_batch(0) == []


def test_a_batch_of_chosen_types_and_difficulties():
    problems = generate_batch(8, types=["logic", "math"], difficulty=(2, 4))
    assert [(problem.type, problem.difficulty) for problem in problems[:5]] == [
        *(("logic", 2), ("math", 2), ("logic", 4), ("math", 4), ("logic", 2))
    ]
    assert problems[4] == problem_at("logic", 1, difficulty=2)


@pytest.mark.parametrize("type_name", ALL_TYPES)
def test_distinct_problems_differ_in_content(type_name):
    problems = distinct_problems(type_name, 100, levels=(1,), split="evaluation")
    assert len({problem.content for problem in problems}) == 100
    assert problems[:50] == distinct_problems(type_name, 50, levels=(1,), split="evaluation")


def test_a_pool_that_is_used_up_is_reported(monkeypatch):
    monkeypatch.setattr("everlearn.streams.arena.generate.MAX_REPEATS", 50)
    with pytest.raises(StreamError, match=r"arena 'math', validation: has too few different items at difficulty 1"):
        distinct_problems("math", 5000, levels=(1,), split="validation")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, r"generate_batch: n: is no count\. Got -1"),
        ({"n": 1, "start": -2}, "start"),
        ({"n": 1, "split": "test"}, r"is no split\. Got 'test'"),
        ({"n": 1, "types": []}, "types"),
        ({"n": 1, "types": "math"}, "is no list"),
        ({"n": 1, "types": ["maths"]}, "Did you mean 'math'"),
        ({"n": 1, "types": ["math", "math"]}, "twice"),
        ({"n": 1, "difficulty": 6}, r"difficulty: is no difficulty\. Got 6"),
        ({"n": 1, "difficulty": ()}, "is no difficulty"),
        ({"n": 1, "difficulty": True}, "is no difficulty"),
        ({"n": 1, "difficulty": (1, 1)}, "twice"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        generate_batch(**arguments)


def test_bad_arguments_of_one_item_are_named():
    with pytest.raises(ConfigError, match="difficulty"):
        problem_at("math", 0, difficulty=0)
    with pytest.raises(ConfigError, match="index"):
        problem_at("math", -1, difficulty=1)
    with pytest.raises(ConfigError, match="split"):
        problem_at("math", 0, difficulty=1, split="eval")
    assert levels_of(None, "") == (1, 2, 3, 4, 5)
