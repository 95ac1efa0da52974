"""How a problem is put to a model, and how its answer is written."""

from collections.abc import Sequence

PROMPTS = {
    # for models that follow instructions
    "instruct": (
        "Using the numbers {numbers}, write an expression that equals {target}. Use each number exactly once and no"
        " operation but {operators}; parentheses are allowed. Think between <think> and </think>. Then give the"
        " expression alone between <answer> and </answer>, for example <answer>1 + 2 + 3</answer>."
    ),
    # for small models: the operators tell the groups apart
    "short": "Numbers {numbers} use {operators} target {target}.\n",
}
_SEPARATORS = {"instruct": ", ", "short": " "}


def prompt_of(numbers: Sequence[int], target: int, operators: str, style: str = "instruct") -> str:
    """Return the question, in one of the styles of `PROMPTS`.

    >>> prompt_of([3, 5, 9], 17, "+-", "short")
    'Numbers 3 5 9 use + - target 17.\\n'
    """
    separator = _SEPARATORS[style]
    joined = separator.join(map(str, numbers)), separator.join(operators)
    return PROMPTS[style].format(numbers=joined[0], target=target, operators=joined[1])


def answer_of(solution: str) -> str:
    """Return a solution as it is to be answered."""
    return f"<answer>{solution}</answer>"
