"""Rows of small tasks, as users hold them."""

WORDS = [("bad", "good"), ("cat", "dog"), ("red", "green")]


def moods(number: int, n: int = 12) -> list[dict]:
    """Texts of two classes, told by a word."""
    words = WORDS[number]
    return [{"text": " ".join(["is"] * (i + 1) + [words[i % 2]]), "label": words[i % 2]} for i in range(n)]


def sums(number: int, n: int = 12) -> list[dict]:
    """Prompts with answers."""
    return [{"prompt": f"{i}+{number}=", "completion": str(i + number)} for i in range(n)]
