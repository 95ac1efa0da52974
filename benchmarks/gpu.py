"""What a GPU gives in the minutes that one is lent for: LoRA training, batched scoring, the pocket model made anew.

    python benchmarks/gpu.py --out FOLDER [--minutes 8] [--peer PYTHON] [--device cpu --tiny]

Random weights of the shapes of Qwen2.5-0.5B and Llama-3.2-1B, bfloat16, LoRA 16, rows of random words: tokens a second
and memory of training beside a loop by hand, beside TRL where PYTHON has it, and with several rows packed in a
sequence; answers a second of scoring beside `generate` called batch by batch. What is left of the minutes goes into
recipes/pocket_gpu.yaml. Writes FOLDER/gpu.json and gpu.md after each part, and FOLDER/pocket.tar with the model. A part
that fails is told there, the others go on, and the exit code is 1.

benchmarks/gpu.sh calls it after the tests that need a GPU. With --tiny everything is small enough for a test.
"""

import argparse
import os
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from paired import Pairs, write
from sft import CAN_PACK, LEARNING_RATE, measure
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config
from workload import word_tokenizer

from everlearn.evaluation.score import score_task
from everlearn.learners.devices import start_accelerator
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.models.pocket.batches import window
from everlearn.models.pocket.corpus import OPENING
from everlearn.models.pocket.network import build_network, build_optimizers
from everlearn.models.pocket.pretrain import pretrain
from everlearn.models.pocket.recipe import PocketRecipe, load_pocket_recipe
from everlearn.models.pocket.scoring import score_families
from everlearn.models.pocket.tokenizer import train_tokenizer
from everlearn.models.pocket.training import Position, train_step
from everlearn.seeds import generator_for, seed_for
from everlearn.state import write_file
from everlearn.streams.arena import ArenaStream
from everlearn.types import Task

LEAST_S = 60.0  # that make a pocket model worth beginning
SCORES_S = 25.0  # of them, for its scores
SAFE = 0.85  # share of the rest that is planned for: the trial's times are short
TINY_TOKENS = 1000
POCKET = Path(__file__).parents[1] / "recipes" / "pocket_gpu.yaml"


@dataclass(frozen=True)
class Sizes:
    """How much is measured. Lengths in tokens; an answer's is exact, a prompt's drawn up to `longest`."""

    batch_size: int = 16
    shortest: int = 64
    longest: int = 448
    completion: int = 64
    block: int = 4  # steps in a turn
    n_steps: int = 40
    n_scored: int = 128
    scored_at_once: int = 64
    n_rounds: int = 4  # of scoring; the first doesn't count
    n_answer: int = 32  # new tokens
    n_tried: int = 40  # steps of pretraining that tell how many tokens there is time for


FULL = Sizes()
TINY = Sizes(
    batch_size=2, shortest=4, longest=8, completion=2, block=1, n_steps=2, n_scored=4, scored_at_once=2, n_rounds=2,
    n_answer=2, n_tried=1,
)  # fmt: skip
SHAPES: dict[str, PretrainedConfig] = {
    "Qwen2.5-0.5B": Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=32_768, tie_word_embeddings=True,
    ),
    "Llama-3.2-1B": LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=131_072, tie_word_embeddings=True,
    ),
}  # fmt: skip
TINY_SHAPES = {
    "tiny": LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True,
    )
}  # fmt: skip
TINY_POCKET = {
    "vocabulary_size": 400, "tokenizer_documents": 200, "hidden_size": 32, "intermediate_size": 48, "n_layers": 1,
    "n_heads": 2, "n_kv_heads": 1, "max_tokens": 96, "batch_tokens": 400, "opening_documents": 16,
    "window_documents": 48, "score_items": 1,
}  # fmt: skip


def write_model(shape: PretrainedConfig, folder: Path, device: str) -> None:
    """Save a model of a shape with random weights, and a tokenizer of as many words."""
    shape.pad_token_id, shape.bos_token_id, shape.eos_token_id = 0, 1, 2
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed_for("gpu", "weights"))
        network = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    network.save_pretrained(folder)
    word_tokenizer(shape.vocab_size).save_pretrained(folder)


def random_rows(n: int, sizes: Sizes, vocabulary: int) -> list[dict[str, str]]:
    """Return prompts of different lengths with completions of one length, of random words, a token a word."""
    generator = generator_for("gpu", "rows")
    lengths = torch.randint(sizes.shortest, sizes.longest + 1, (n,), generator=generator).tolist()

    def words(count: int) -> str:
        return " ".join(f"w{i}" for i in torch.randint(3, vocabulary, (count,), generator=generator).tolist())

    return [{"prompt": words(length), "completion": f" {words(sizes.completion - 1)}"} for length in lengths]


def training(folder: Path, shape: PretrainedConfig, sizes: Sizes, device: str, peer: str | None) -> dict[str, Any]:
    """Return what training takes beside the other ways; see `sft.measure`."""
    plan = {
        "model": str(folder), "dtype": "bfloat16", "precision": "bf16", "device": device, "n_threads": 1,
        "batch_size": sizes.batch_size, "block": sizes.block, "n_steps": sizes.n_steps,
    }  # fmt: skip
    rows = random_rows(sizes.n_steps * sizes.batch_size, sizes, shape.vocab_size)
    found = measure(plan, rows, peer, ("ours", "by_hand", *(("ours_packed",) if CAN_PACK else ())))
    tokens = found["sizes"]["tokens_a_row"]
    return {**found, "tokens_per_s": {side: rate * tokens for side, rate in found["rows_per_s"].items()}}


def scoring(folder: Path, shape: PretrainedConfig, sizes: Sizes, device: str) -> dict[str, Any]:
    """Return how many answers a second scoring gives, beside `generate` batch by batch, in turns."""
    rows = random_rows(sizes.n_scored, sizes, shape.vocab_size)
    task = Task("rows", "prompt", [], rows, max_new_tokens=sizes.n_answer, metrics=("exact_match",))
    accelerator = start_accelerator(device=device)
    config = ModelConfig(str(folder), AdapterConfig(rank=16), dtype="bfloat16", chat="never")
    model = load_model(config, [task])
    model.network.to(device)
    tokenizer, pairs = model.tokenizer, Pairs()
    tokenizer.padding_side = "left"

    def by_hand() -> None:
        model.network.eval()
        for start in range(0, len(rows), sizes.scored_at_once):
            prompts = [f"<bos> {row['prompt']}" for row in rows[start : start + sizes.scored_at_once]]
            batch = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False).to(device)
            with torch.no_grad():
                out = model.network.generate(**batch, max_new_tokens=sizes.n_answer, do_sample=False)
            tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :])

    by_hand()
    for _ in range(sizes.n_rounds):
        pairs.start()
        score_task(model, task, "evaluation", accelerator, sizes.scored_at_once)
        pairs.close(by_hand)
    own, other = (median(wall for wall, _ in times[1:]) for times in (pairs.first, pairs.second))
    return {"answers_per_s": {"ours": len(rows) / own, "by_hand": len(rows) / other}, "times_as_fast": other / own}


def seconds_a_token(recipe: PocketRecipe, tokenizer: Any, n_processes: int, device: str, n_tried: int) -> float:
    """Return how long pretraining takes for a token, by a short trial of its steps and its windows."""
    model = build_network(recipe, tokenizer).to(device)
    optimizers = build_optimizers(recipe, model)
    taken_s = 0.0
    for share, progress in ((OPENING, 0.0), (1 - OPENING, 1.0)):
        started = time.perf_counter()
        batches = window(tokenizer, recipe, 0, progress)
        drawing_s = (time.perf_counter() - started) / max(1, n_processes) / sum(batch.n_tokens for batch in batches)
        tried = [batches[i % len(batches)] for i in range(n_tried)]
        position = Position(progress=progress)
        train_step(recipe, model, optimizers, tried[0], position)
        started = time.perf_counter()
        for batch in tried:
            train_step(recipe, model, optimizers, batch, position)
        steps_s = (time.perf_counter() - started) / sum(batch.n_tokens for batch in tried)
        taken_s += share * (max(steps_s, drawing_s) if n_processes else steps_s + drawing_s)
    return taken_s


def pocket(out: Path, seconds: float, device: str, sizes: Sizes) -> dict[str, Any]:
    """Make the pocket model with as many tokens as there is time for; return how and how good it is."""
    tiny, begun = sizes is TINY, time.monotonic()
    if seconds < LEAST_S:
        raise RuntimeError(f"{seconds:.0f} s are left, fewer than {LEAST_S:.0f}")
    recipe = PocketRecipe(**TINY_POCKET) if tiny else load_pocket_recipe(POCKET)
    n_processes = 0 if tiny else max(1, (os.cpu_count() or 2) - 3)
    with tempfile.TemporaryDirectory() as place:
        tokenizer = train_tokenizer(recipe.vocabulary_size, recipe.tokenizer_documents, recipe.seed)
        tokenizer.save_pretrained(Path(place) / "tokenizer")  # where the run finds it
        rate_s = seconds_a_token(recipe, tokenizer, n_processes, device, sizes.n_tried)
        left_s = seconds - (time.monotonic() - begun) - SCORES_S
        n_tokens = min(int(SAFE * max(0.0, left_s) / rate_s) + 1, TINY_TOKENS if tiny else sys.maxsize)
        rates = [list(point) for point in recipe.learning_rates]  # YAML has no tuples
        settings = {**vars(recipe), "total_tokens": n_tokens, "learning_rates": rates}
        write_file(out / "pocket.yaml", yaml.safe_dump(settings, sort_keys=False).encode())
        started = time.monotonic()
        folder = pretrain(out / "pocket.yaml", Path(place), quiet=True, processes=n_processes)
        taken = time.monotonic() - started
        with tarfile.open(out / "pocket.tar", "w") as packed:
            packed.add(folder, "pocket")
        model = load_model(ModelConfig(str(folder), chat="never"), [Task("any", "prompt", [], [])])
    model.network.to(device)
    families = score_families(model.network, model.tokenizer, 1 if tiny else 100)
    found = {"n_tokens": n_tokens, "train_s": taken, "tokens_per_s": n_tokens / taken, "families": families}
    arena = {}
    for task in ArenaStream(difficulty=1, n_train=1, n_validation=0, n_eval=2 if tiny else 100).build():
        score = score_task(model, task, "evaluation", start_accelerator(device=device), 64)
        arena[task.name] = score.value
    return {**found, "arena": arena}


def markdown(numbers: dict[str, Any]) -> str:
    """Return the numbers as tables."""
    lines = ["| training | side | tokens/s | beside it, ours | memory, MiB |", "| --- | --- | --- | --- | --- |"]
    for name, found in numbers.get("training", {}).items():
        for side, rate in found["tokens_per_s"].items():
            ratio = found["times_as_fast_as"].get(side)
            beside = f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]" if ratio else ""
            lines.append(f"| {name} | {side} | {rate:,.0f} | {beside} | {found['memory_bytes'][side] / 2**20:,.0f} |")
    lines += ["", "| scoring | ours, answers/s | by hand | times as fast |", "| --- | --- | --- | --- |"]
    for name, found in numbers.get("scoring", {}).items():
        rates = found["answers_per_s"]
        lines.append(f"| {name} | {rates['ours']:.1f} | {rates['by_hand']:.1f} | {found['times_as_fast']:.2f} |")
    if "pocket" in numbers:
        made = numbers["pocket"]
        scores = [f"{name} {value:.2f}" for name, value in {**made["families"], **made["arena"]}.items()]
        lines += ["", f"pocket: {made['n_tokens']:,} tokens in {made['train_s']:.0f} s; {', '.join(scores)}"]
    lines += [f"\nFAILED: {part}: {reason}" for part, reason in numbers["failed"].items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure part by part; write what there is after each."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--peer", help="python with TRL")
    arguments = parser.parse_args()
    out, device = arguments.out, arguments.device
    out.mkdir(parents=True, exist_ok=True)
    sizes, shapes = (TINY, TINY_SHAPES) if arguments.tiny else (FULL, SHAPES)
    config = {**vars(sizes), "device": device, "learning_rate": LEARNING_RATE}
    numbers: dict[str, Any] = {"training": {}, "scoring": {}, "failed": {}}

    def part(place: dict[str, Any], name: str, measured: Callable[..., dict[str, Any]], *options: Any) -> None:
        try:
            place[name] = measured(*options)
        except (RuntimeError, OSError, ValueError, SystemExit) as error:
            traceback.print_exc()
            numbers["failed"][name] = f"{type(error).__name__}: {error}"
        write(out / "gpu.json", config, numbers)
        write_file(out / "gpu.md", markdown(numbers).encode())

    for name, shape in shapes.items():
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder)
            write_model(shape, model, device)
            part(numbers["training"], name, training, model, shape, sizes, device, arguments.peer)
            part(numbers["scoring"], name, scoring, model, shape, sizes, device)
    left_s = 60 * arguments.minutes - (time.monotonic() - started)
    part(numbers, "pocket", pocket, out, left_s, device, sizes)
    print(markdown(numbers))
    return 1 if numbers["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
