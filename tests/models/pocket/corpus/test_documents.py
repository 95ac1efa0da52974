import re
from random import Random

import pytest

from everlearn.errors import ConfigError
from everlearn.models.pocket.corpus import FAMILIES, document, documents, formats, sample, text_of, words
from everlearn.streams.arena import (
    ADVANCED_TYPES,
    TYPES,
    analogy,
    causal,
    comparison,
    counterfactual,
    deduction,
    extraction,
    generate_batch,
    logic_grid,
    math_word,
    passage,
    sequence,
    vocabulary,
)

FAMILY_MODULES = [getattr(documents, name) for name in FAMILIES]
ARENA_MODULES = [
    *(causal, comparison, logic_grid, math_word, sequence),
    *(analogy, counterfactual, deduction, extraction, passage),
]


def kinds_of_words():
    """Map each name, thing, colour and number word to the one letter of its kind."""
    nouns = words.THINGS + words.PETS + words.FRUITS + words.TOOLS + words.MUSIC + words.VEHICLES + words.JOBS
    groups = {
        "N": [*vocabulary.NAMES, *words.NAMES],
        "T": [*vocabulary.THINGS, *nouns, *words.DRINKS],
        "C": [*vocabulary.COLOURS, *words.COLORS],
        "#": words.NUMBER_WORDS,
    }
    return {
        form.lower(): letter
        for letter, group in groups.items()
        for word in group
        for form in (word, words.plural(word))
    }


KINDS = kinds_of_words()


def skeleton(text):
    """The text without its fillers: kinds for names, things, colours and numbers, lists shortened to one."""
    pieces = re.findall(r"[a-z]+|\d+|[^\sa-z\d]", text.lower())
    line = " ".join("#" if piece.isdigit() else KINDS.get(piece, piece) for piece in pieces)
    return re.sub(r"(\w|#)( , \1)*( (and|or|,) \1)+", r"\1", line)


def bare(template):
    return re.sub(r"\{\w*\}", "{}", " ".join(template.lower().split())).strip(" .:?!")


@pytest.fixture(scope="module")
def texts():
    rng = Random(1)
    return [sample(family, rng)[0] for family in FAMILIES for _ in range(800)]


@pytest.fixture(scope="module")
def arena_texts():
    return [
        problem.prompt.removesuffix("\nAnswer:") for problem in generate_batch(4000, types=[*TYPES, *ADVANCED_TYPES])
    ]


def test_a_document_depends_on_seed_and_index_alone():
    backwards = [document(0, index) for index in reversed(range(50))][::-1]
    assert backwards == [document(0, index) for index in range(50)]
    assert sum(document(0, i) == document(1, i) for i in range(50)) <= 1
    assert document(0, 0) != document(0, 0, split="tokenizer")


def test_no_document_uses_the_arenas_cue():
    assert not any("answer:" in text_of(document(0, index)).lower() for index in range(5000))


def test_the_templates_are_not_the_arenas():
    ours = {bare(template) for module in FAMILY_MODULES for template in module.TEMPLATES}
    theirs = {bare(template) for module in ARENA_MODULES for template in module.TEMPLATES}
    theirs |= {bare(text) for relation in comparison.RELATIONS for text in relation[:2]}
    theirs |= {bare(text) for group in math_word.EVENTS.values() for text in group}
    theirs |= {bare(text) for text in (*logic_grid.CLUES.values(), *logic_grid.QUESTIONS, *causal.RULES)}
    theirs |= {bare(text) for rule in deduction.RULES for text in rule}
    theirs |= {bare(text) for text in (deduction.KINDS, analogy.EXAMPLE, analogy.OPTIONS, *analogy.RELATIONS)}
    theirs |= {bare(text) for text in (*counterfactual.QUESTIONS.values(), *extraction.QUESTIONS.values())}
    theirs |= {bare(text) for text in (*extraction.POLLS, *(part for order in extraction.ORDERS for part in order[:2]))}
    theirs |= {bare(text) for text in (*passage.TOLD, *passage.REMARKS, *passage.QUESTIONS.values())}
    assert len(theirs) > 40
    assert not ours & theirs


def test_no_whole_item_shares_a_skeleton_with_the_arena(texts, arena_texts):
    ours = {skeleton(text.rsplit("\n", 1)[0]) for text in texts} | {skeleton(text) for text in texts}
    theirs = {skeleton(text) for text in arena_texts}
    assert len(theirs) > 500
    assert not ours & theirs


def test_no_told_sentence_shares_a_skeleton_with_the_arena(texts, arena_texts):
    def told(all_texts):
        return {skeleton(part) for text in all_texts for part in re.findall(r"[^.?!\n]+\.", text)}

    assert skeleton("Zoe has 5 stamps.") == skeleton("Ben has twelve apples.")  # the comparison sees through fillers
    assert not told(texts) & told(arena_texts)


def test_there_is_variety():
    assert all(len(set(module.TEMPLATES)) >= 12 for module in FAMILY_MODULES)
    assert len(set(formats.CUES)) >= 12
    assert len(set(formats.WRAPPERS)) == len(formats.WISHES) >= 8


@pytest.mark.parametrize("family", FAMILIES)
def test_an_item_ends_in_its_cue_and_a_short_answer(family):
    rng = Random(2)
    for _ in range(300):
        prompt, completion = sample(family, rng)
        assert prompt == prompt.rstrip(" ")
        assert completion.startswith(" ")
        assert completion.strip()
        assert "{" not in prompt


def test_levels_start_easy_and_reach_all():
    rng = Random(3)
    early = {documents.draw_level(rng, 0.0) for _ in range(500)}
    late = [documents.draw_level(rng, 1.0) for _ in range(5000)]
    assert early == {1, 2}
    assert all(abs(late.count(level) / 5000 - 0.2) < 0.03 for level in (1, 2, 3, 4, 5))


def test_training_opens_with_pairs_in_which_each_key_is_followed_by_its_value():
    for index in range(50):
        (first, value), *others = document(0, index, 0.0)
        *rows, key = first.replace("\n ", ", ").split(", ")
        table = dict(row.split() for row in rows)
        told = [(key, value.strip()), *((prompt.strip(), answer.strip()) for prompt, answer in others)]
        assert sorted(told) == sorted([*table.items()] * 2)


def test_phrasings_widen_once_looking_up_is_learned():
    def n_with(part, progress):
        return sum(part in text_of(document(0, index, progress)) for index in range(400))

    between = (documents.PAIRS + documents.OPENING) / 2
    assert {document(0, index, between)[0][0].rsplit("\n", 1)[-1] for index in range(400)} == {"A:"}
    assert n_with(" keeps the ", between) > 10
    assert n_with(" lives in ", between) == 0
    assert n_with(" lives in ", 1.0) > 0


def test_a_narrow_source_opens_the_first_phrasings_and_all_of_an_items_words():
    rng = documents.Narrow(0)
    rng.open_share = 0.3
    assert {rng.choice(tuple("abcdefghij")) for _ in range(200)} == set("abc")
    assert {rng.choice(list("abcdefghij")) for _ in range(200)} == set("abcdefghij")
    assert rng.choice(("one",)) == "one"


def test_an_unknown_family_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'ordering'"):
        sample("orderings", Random(0))
