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
    ("comparison", "train"): "e176ebe4a5b28b26",
    ("comparison", "validation"): "ff1c23f8caf1b665",
    ("comparison", "evaluation"): "1cae915a99f1e94f",
    ("sequence", "train"): "a6cd2a34d4b9c7ff",
    ("sequence", "validation"): "9cfbb7f463218847",
    ("sequence", "evaluation"): "693505dcfdbf3d25",
    ("causal", "train"): "614723e167a1c217",
    ("causal", "validation"): "e67d9c11b03bb4a1",
    ("causal", "evaluation"): "555d423ce271af1f",
    ("math", "train"): "8b3ef4fc33f342fe",
    ("math", "validation"): "750be6c98e5ecb79",
    ("math", "evaluation"): "e6239573e0a6f28c",
    ("logic", "train"): "96816a176fbb11a8",
    ("logic", "validation"): "ae277e4f7ae7072c",
    ("logic", "evaluation"): "219c557051cd6c6a",
    ("multistep", "train"): "d475900d75a4d2db",
    ("multistep", "validation"): "0290883161c5e947",
    ("multistep", "evaluation"): "cbef6d148ec63c50",
    ("algebra", "train"): "bdd526255546573d",
    ("algebra", "validation"): "d1a10fa4a4aa3c18",
    ("algebra", "evaluation"): "05472dda038599c7",
    ("probability", "train"): "ef058b22e21a719f",
    ("probability", "validation"): "4dc3adfb18570ea6",
    ("probability", "evaluation"): "187250ea2da6a1e0",
    ("geometry", "train"): "9c76110fd5459697",
    ("geometry", "validation"): "c748b0c534ca8f34",
    ("geometry", "evaluation"): "394e7e727b2174f7",
    ("code", "train"): "9bcf036e02652d7f",
    ("code", "validation"): "820f2d1207d5adb3",
    ("code", "evaluation"): "f66792e96e1f20de",
    ("deduction", "train"): "947c25c07439cfbc",
    ("deduction", "validation"): "031d9e61fe94090f",
    ("deduction", "evaluation"): "e61d5fa8711d1bc1",
    ("counterfactual", "train"): "c55f43f923dc4e34",
    ("counterfactual", "validation"): "f614c9001b532cce",
    ("counterfactual", "evaluation"): "efbdcf39f919fcd6",
    ("analogy", "train"): "b5e3bb0519d58217",
    ("analogy", "validation"): "68be7a2cc6475a03",
    ("analogy", "evaluation"): "e2b7bc7110a4601f",
    ("passage", "train"): "76ced5728c4ac218",
    ("passage", "validation"): "a7363f56b51d0399",
    ("passage", "evaluation"): "ad7e43b08304aa0c",
    ("extraction", "train"): "0ce492a30a856e46",
    ("extraction", "validation"): "52f82cdaf1e9a0b6",
    ("extraction", "evaluation"): "56f02baf71040981",
}


@pytest.mark.parametrize(("type_name", "split"), RECORDED)
def test_items_never_change(type_name, split):
    digest = hashlib.sha256()
    for seed in (0, 3):
        for difficulty in range(1, 6):
            for index in (*range(40), 10**9):
                problem = problem_at(type_name, index, difficulty=difficulty, seed=seed, split=split)
                digest.update(json.dumps(problem._replace(explanation="")).encode())  # that is beside the item
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
