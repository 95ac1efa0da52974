"""The log of an online run, written by hand."""

import json
from pathlib import Path

ITEMS = [{"type": "ab"[i % 2], "difficulty": 1 + i // 2} for i in range(4)]


def write_online_log(
    folder: Path, outcomes: dict[int, list[list[int]]], *, ended: bool = True, kept: int = 0, types: str = "ab"
) -> Path:
    """Write the log of a run that is scored every second episode; every second episode is learned at once.

    outcomes: {seed: [outcomes of the four held-out problems at each scoring]}; kept: bytes that a strategy keeps;
    types: those of the episodes, again and again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text("source: {name: arena}\n")
    recipe = {"seeds": list(outcomes), "seed": None, "episodes": 2 * (len(next(iter(outcomes.values()))) - 1)}
    evaluations = [{"type": "header", "recipe": recipe, "env": {}, "items": ITEMS}]
    episodes = []
    for seed, scorings in outcomes.items():
        for place, right in enumerate(scorings):
            line = {"type": "evaluation", "seed": seed, "episode": 2 * place, "outcomes": right, "seconds": 0.5}
            evaluations.append({**line, "strategy_bytes": {"replay": kept} if kept else {}})
        n_episodes = 2 * (len(scorings) - 1)
        for number in range(n_episodes):
            line = {"seed": seed, "episode": number + 1, "type": types[number % len(types)]}
            line |= {"loss": 1.0 / (number + 1), "seconds": 0.1}
            episodes.append({**line, "correct": number % 2 == 0, "correct_after": True})
        if ended:
            evaluations.append({"type": "end", "seed": seed, "episode": n_episodes})
    for name, lines in (("evaluations.jsonl", evaluations), ("episodes.jsonl", episodes)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
