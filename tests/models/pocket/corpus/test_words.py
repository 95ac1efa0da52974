from everlearn.models.pocket.corpus import words


def test_plurals_articles_and_lists():
    assert [words.plural(noun) for noun in ("box", "cherry", "toy", "leaf", "brush")] == [
        "boxes", "cherries", "toys", "leaves", "brushes"
    ]  # fmt: skip
    assert words.article("egg") == "an egg"
    assert words.article("cup") == "a cup"
    assert words.joined(["a", "b", "c"]) == "a, b and c"
    assert words.joined(["a"], "or") == "a"


def test_no_list_repeats_a_word():
    for group in (words.NAMES, words.THINGS, words.PETS, words.COLORS, words.FRUITS, words.JOBS, words.TOOLS):
        assert len(set(group)) == len(group)
