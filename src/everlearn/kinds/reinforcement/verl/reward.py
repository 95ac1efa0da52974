"""The reward as one file that verl loads, on machines without everlearn."""

from everlearn.streams.countdown.standalone import source_of

# name of a reward -> how it is worked out, and the function of the verifier that it calls
FORMULAS = {
    "countdown": ("reward(solution_str, *problem)", "reward"),
    "countdown_attempts": ("reward_with_attempts(solution_str, *problem)", "reward_with_attempts"),
    "countdown_right": ("right", "judge"),
    "verifier": ("right", "judge"),
}


def reward_file(name: str) -> str:
    """Return a module for verl's `custom_reward_function` that judges as the reward of that name does, without ours.

    Its `compute_score` returns the score, and as `acc` whether the answer is right, by which verl tells the success.
    """
    formula, function = FORMULAS[name]
    return f'''"""Countdown's reward for verl; the source is everlearn's own verifier. Python 3.11 or newer."""

{source_of("judge", "Verdict", function)}

def compute_score(data_source, solution_str, ground_truth, extra_info=None, **unused):
    """Return what a response is worth (score), and whether it is right (acc)."""
    numbers = [int(number) for number in ground_truth["numbers"]]
    problem = numbers, int(ground_truth["target"]), str(ground_truth["operators"])
    right = float(judge(solution_str, *problem) is Verdict.RIGHT)
    return {{"score": {formula}, "acc": right}}
'''
