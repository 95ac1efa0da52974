"""What an online episode costs beside a hand-written peft loop, and what scoring in batches saves.

    python benchmarks/online.py [--episodes N] [--out FILE]

An episode: answer, one AdamW step on the right answer, answer again, on the pocket model with LoRA. Each episode of
ours is followed at once by the same one of the hand-written loop on a twin; both end with the same weights, bit for
bit, or the comparison is void. Scoring: 200 held-out problems by ours, in batches of 32 as a run does, against
generating one at a time.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from paired import Pairs, report, write
from workload import results_path, use_one_thread

from everlearn.evaluation.score import is_right, score_task
from everlearn.kinds.online import load_online_recipe
from everlearn.kinds.online.recipe import HeldOutConfig
from everlearn.learners.devices import start_accelerator
from everlearn.listener import Listener
from everlearn.models.load import ModelConfig, load_model
from everlearn.runs import run
from everlearn.streams.arena.episodes import ArenaSource
from everlearn.types import Episode, Row, Score, Task

LEARNING_RATE = 1e-3
SOURCE = {"name": "arena", "difficulty": 1}


class ByHand:
    """Answer, step, answer: what anyone would write with transformers and peft."""

    def __init__(self) -> None:
        model = load_model(ModelConfig(), [Task("stream", "prompt", [], [])], seed=0)
        self.network, self.tokenizer = model.network, model.tokenizer
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LEARNING_RATE, weight_decay=0.01, fused=True)

    def episode(self, row: Row) -> None:
        """Go through one problem."""
        self.answer([row["prompt"]])
        self.network.train()
        prompt = self.tokenizer(row["prompt"])["input_ids"]
        completion = self.tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        completion.append(self.tokenizer.eos_token_id)
        ids = torch.tensor([prompt + completion])
        logits = self.network(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        torch.nn.functional.cross_entropy(logits.float(), ids[0, len(prompt) :]).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.answer([row["prompt"]])

    def answer(self, prompts: list[str]) -> list[str]:
        """Return the greedy answers."""
        self.network.eval()
        batch = self.tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
        with torch.no_grad():
            out = self.network.generate(
                **batch, max_new_tokens=8, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
        return self.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


class Beside(Listener):
    """Lets the second loop go through each episode right after ours."""

    def __init__(self, by_hand: ByHand):
        self.by_hand, self.pairs = by_hand, Pairs()

    def evaluated(self, done: int, accuracy: float) -> None:
        self.pairs.start()

    def episode(self, done: int, n_episodes: int, episode: Episode) -> None:
        self.pairs.close(lambda: self.by_hand.episode(episode.row))


def measure_episodes(n_episodes: int) -> dict[str, Any]:
    """Return the paired times of our loop and the hand-written one, and of the hand-written one and its twin."""
    by_hand = ByHand()
    beside = Beside(by_hand)
    content = {
        "source": SOURCE, "learner": {"learning_rate": LEARNING_RATE}, "strategies": [], "episodes": n_episodes,
        "device": "cpu",
        "boundary": n_episodes, "evaluation": {"n": 5, "interval": n_episodes + 1}, "checkpoint": {"every_s": None},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run(load_online_recipe(content), Path(folder) / "run", listener=beside)
        check_same(Path(folder) / "run" / f"checkpoint_ep{n_episodes}", by_hand)
    return {"ours": beside.pairs.numbers(), "null": null_control(n_episodes)}


def check_same(adapter: Path, by_hand: ByHand) -> None:
    """Refuse a comparison of loops that learned differently."""
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import load_file

    ours, theirs = load_file(adapter / "adapter_model.safetensors"), get_peft_model_state_dict(by_hand.network)
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise SystemExit("the two loops ended with different weights: the comparison is void")


def null_control(n_episodes: int) -> dict[str, Any]:
    """Return the paired times of two hand-written loops."""
    first, second, pairs = ByHand(), ByHand(), Pairs()
    feed = ArenaSource(difficulty=1).feed(0, n_episodes)
    pairs.start()
    for _ in range(n_episodes):
        row = feed.next()
        first.episode(row)
        pairs.close(lambda row=row: second.episode(row))
    return pairs.numbers()


def measure_scoring(n_rounds: int) -> dict[str, Any]:
    """Return the paired times of answering the held-out problems one at a time by hand, and of scoring them."""
    by_hand, pairs = ByHand(), Pairs()
    source = ArenaSource(difficulty=1)
    rows = source.held_out(HeldOutConfig().n)
    task = Task("stream", "prompt", [], rows, verifier=source.verifier, max_new_tokens=source.max_new_tokens)
    model, accelerator = load_model(ModelConfig(), [task], seed=0), start_accelerator(device="cpu")
    batch_size = HeldOutConfig().batch_size
    pairs.start()
    for _ in range(n_rounds):
        answers = [by_hand.answer([row["prompt"]])[0] for row in rows]
        scores: list[Score] = []
        pairs.close(lambda found=scores: found.append(score_task(model, task, "evaluation", accelerator, batch_size)))
        right = [is_right(task, answer, row, row["completion"]) for answer, row in zip(answers, rows, strict=True)]
        if right != [bool(outcome) for outcome in scores[0].outcomes]:
            raise SystemExit("the two gave different answers: the comparison is void")
    return pairs.numbers()


def main() -> None:
    """Measure both and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=results_path("online"))
    arguments = parser.parse_args()
    use_one_thread()
    episodes = measure_episodes(arguments.episodes)
    scoring = measure_scoring(arguments.rounds)
    report("an online episode", episodes["ours"], episodes["null"])
    fewer = scoring["ratio"]
    print(f"one at a time against scored in batches: {fewer['median']:.2f} [{fewer['low']:.2f}, {fewer['high']:.2f}]")
    config = {
        "episodes": arguments.episodes,
        "rounds": arguments.rounds,
        "evaluation": vars(HeldOutConfig()),
        "model": "pocket, LoRA 16",
    }
    write(arguments.out, config, {"episode": episodes, "one_at_a_time_against_batched": scoring})


if __name__ == "__main__":
    main()
