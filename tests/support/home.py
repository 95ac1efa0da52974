"""Rows for the tests of a home."""


def rows(words: tuple[str, str], n: int, start: int = 0) -> list[dict]:
    """Texts of two classes, told by a word; a text's length tells its number, so that none repeats."""
    return [
        {"text": " ".join(["is"] * (i // 2 + 1) + [words[i % 2]]), "label": words[i % 2]}
        for i in range(start, start + n)
    ]
