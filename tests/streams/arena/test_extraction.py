"""Orders and polls, read again from their layouts and worked out by a few lines for each question."""

import re
from collections import Counter

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.extraction import QUESTIONS
from everlearn.streams.arena.vocabulary import THINGS

LINES = (  # an order's lines: thing, number, price
    r"(?P<n>\d+) x (?P<thing>\w+) (?:at|for) (?P<price>\d+) each",
    r"(?P<thing>\w+) \| (?P<n>\d+) \| (?P<price>\d+)",
    r"(?P<thing>\w+): number=(?P<n>\d+), price=(?P<price>\d+)",
)
STARTS = (
    "What number|What is the price|How many different|How many pieces|What is the cost of all|"
    "What is the cost of the whole|What would"
)
HEADS = {
    "Who sends": r"(?:From: |by |from=|Yours, )(\w+)",
    "To whom": r"(?:To: |for |to=|Dear )([A-Z]\w+)",
    "What is the date": r"(?:Date: |Order of |date=|Letter of )(\w+ \d+)",
}


def lines_of(prompt: str) -> dict[str, tuple[int, int]]:
    found = [match for pattern in LINES for match in re.finditer(pattern, prompt)]
    return {match["thing"]: (int(match["n"]), int(match["price"])) for match in found}


def votes_of(prompt: str) -> Counter:
    text = prompt.replace(re.search(r"[^\n]*\?", prompt).group(), "").replace("Answer", "")
    return Counter(word for word in re.findall(r"\w+", text) if word in THINGS)


def from_lines(question: str, lines: dict[str, tuple[int, int]], thing: str) -> str:
    costs = {name: number * price for name, (number, price) in lines.items()}
    column = 1 if "price" in question else 0
    ranked = sorted(lines, key=lambda name: lines[name][column])
    if "highest" in question or "largest" in question:
        return ranked[-1]
    if "lowest" in question or "smallest" in question:
        return ranked[0]
    return {
        "What number": lambda: str(lines[thing][0]),
        "What is the price": lambda: str(lines[thing][1]),
        "How many different": lambda: str(len(lines)),
        "How many pieces": lambda: str(sum(number for number, _ in lines.values())),
        "What is the cost of all": lambda: str(costs[thing]),
        "What is the cost of the whole": lambda: str(sum(costs.values())),
        "What would": lambda: str(sum(costs.values()) - costs[thing]),
    }[next(start for start in re.findall(STARTS, question))]()


def from_votes(question: str, votes: Counter, thing: str) -> str:
    (first, most), (_, second) = votes.most_common(2)
    assert most > second
    if "most often" in question:
        return first
    if "ahead" in question:
        return str(most - second)
    return str(len(votes) if "different" in question else votes[thing])


def solve(prompt: str) -> str:
    question = re.search(r"[^\n]*\?", prompt).group()
    for words, pattern in HEADS.items():
        if question.startswith(words):
            return re.search(pattern, prompt.replace(question, "")).group(1)
    thing = next((word for word in re.findall(r"\w+", question) if word in THINGS), "")
    lines = lines_of(prompt)
    return from_lines(question, lines, thing) if lines else from_votes(question, votes_of(prompt), thing)


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_record_gives_the_answer(difficulty):
    for index in range(400):
        problem = problem_at("extraction", index, difficulty=difficulty)
        assert solve(problem.prompt) == problem.answer, problem
        assert not problem.choices or problem.answer in problem.choices


def test_nothing_is_largest_or_first_together_with_another():
    for index in range(400):
        prompt = problem_at("extraction", index, difficulty=3 + index % 3).prompt
        if lines := lines_of(prompt):
            assert len({number for number, _ in lines.values()}) == len(lines)
            assert len({price for _, price in lines.values()}) == len(lines)


def test_polls_come_from_the_third_difficulty_on():
    def n_polls(difficulty: int) -> int:
        return sum(not lines_of(problem_at("extraction", i, difficulty=difficulty).prompt) for i in range(200))

    assert n_polls(1) == n_polls(2) == 0
    assert all(60 < n_polls(difficulty) < 140 for difficulty in (3, 4, 5))


def test_every_question_and_layout_appears():
    prompts = [problem_at("extraction", i, difficulty=1 + i % 5).prompt for i in range(800)]
    text = "\n".join(prompts)
    for words in ("From: ", "Order of ", "from=", "Letter of ", "Votes for", "the class said", "wished for"):
        assert words in text
    questions = [re.search(r"[^\n]*\?", prompt).group() for prompt in prompts]
    assert len({re.sub("|".join(THINGS), "thing", question) for question in questions}) == len(QUESTIONS)


def test_sums_are_worked_out_in_the_explanation():
    for index in range(300):
        problem = problem_at("extraction", index, difficulty=4 + index % 2)
        for left, right in re.findall(r"(\d+(?: [-+*] \d+)+) = (\d+)", problem.explanation):
            assert eval(left) == int(right)


def test_content_is_the_record_whatever_is_asked():
    for index in range(100):
        problem = problem_at("extraction", index, difficulty=5)
        if lines := lines_of(problem.prompt):
            told = sorted(f"{thing} {number} {price}" for thing, (number, price) in lines.items())
        else:
            told = sorted(f"{thing} {votes}" for thing, votes in votes_of(problem.prompt).items())
        assert problem.content.split(": ")[-1] == ", ".join(told)
