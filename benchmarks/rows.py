"""What encoded rows take: bytes a token, rows a second and peak memory, beside a list of dicts of lists.

    RAYON_NUM_THREADS=1 python benchmarks/rows.py [--rows N] [--rounds N] [--out FILE]

The plain way is what tutorials show: each row becomes {"input_ids": [...], "labels": [...]}; a conversation's prompt
and the whole of it go through the tokenizer, so that the prompt's length is known; `label` is a text's, `tags` are
words'. Each side has a process of its own, in turn; both must give the same ids and labels. Memory is what the process
grew by; mapped files count as far as they are resident. Rows: words of English, about 120 tokens of pocket's tokenizer,
in an Arrow table.
"""

import argparse
import gc
import hashlib
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import psutil
from paired import median_with_interval, write
from workload import results_path

from everlearn.models.causal import CausalObjective
from everlearn.models.chat import as_messages, give_template
from everlearn.models.labelled import ClassifyObjective, TagObjective
from everlearn.models.load import ModelConfig, load_tokenizer
from everlearn.types import IGNORED, Task

WORDS = ("the", "river", "machine", "learns", "slowly", "of", "green", "houses", "that", "nobody", "remembers", "now")
SHORTEST, LONGEST = 30, 90  # words of a prompt
KINDS = ("pairs", "chat", "label", "tags")
LABELS = ("A", "B", "C")
Encode = Callable[[datasets.Dataset], Sequence[dict[str, Any]]]


def make_rows(kind: str, n_rows: int) -> datasets.Dataset:
    """Return prompts and completions, texts with labels, or words with tags; no two alike."""
    draw = random.Random(0)

    def words(n: int) -> str:
        return " ".join(draw.choices(WORDS, k=n))

    texts = [f"{i} {words(draw.randint(SHORTEST, LONGEST))}" for i in range(n_rows)]
    if kind == "label":
        columns = {"text": texts, "label": draw.choices(range(len(LABELS)), k=n_rows)}
    elif kind == "tags":
        tokens = [text.split() for text in texts]
        columns = {"tokens": tokens, "tags": [draw.choices(range(len(LABELS)), k=len(words)) for words in tokens]}
    else:
        columns = {"prompt": texts, "completion": [f" {words(8)}" for _ in range(n_rows)]}
    return datasets.Dataset.from_dict(columns)


def ours(tokenizer: Any, kind: str) -> Encode:
    """Return our way from rows to features."""
    if kind in ("label", "tags"):
        adapters: Any = SimpleNamespace(head_mode="task", task_blocks={"rows": 0})
        labelled = {"label": ClassifyObjective, "tags": TagObjective}[kind](tokenizer, adapters, 512)
        return lambda rows: labelled.encode(rows, Task("rows", "classify", rows, rows[:0], labels=LABELS))
    objective = CausalObjective(tokenizer, 512, chat=kind == "chat")
    return lambda rows: objective.encode(rows, Task("rows", "prompt", rows, rows[:0]))


def plain(tokenizer: Any, kind: str) -> Encode:
    """Return the plain way from rows to features."""
    if kind in ("label", "tags"):
        return lambda rows: [_labelled(tokenizer, row) for row in rows]
    begin, end = tokenizer("a")["input_ids"][:1], tokenizer.eos_token_id

    def of_row(row: dict[str, Any]) -> dict[str, list[int]]:
        if kind == "chat":
            messages = as_messages(row)
            asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
            ids = tokenizer.apply_chat_template(messages, return_dict=False)
        else:
            asked = begin + tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
            ids = asked + tokenizer(row["completion"], add_special_tokens=False)["input_ids"] + [end]
        return {"input_ids": ids, "labels": [IGNORED] * len(asked) + ids[len(asked) :]}

    return lambda rows: [of_row(row) for row in rows]


def _labelled(tokenizer: Any, row: dict[str, Any]) -> dict[str, list[int]]:
    if "label" in row:
        return {**tokenizer(row["text"]), "labels": [row["label"]]}
    encoded, labels, before = tokenizer(row["tokens"], is_split_into_words=True), [], None
    for word in encoded.word_ids():
        labels.append(IGNORED if word is None or word == before else row["tags"][word])
        before = word
    return {**encoded, "labels": labels}


def measure(side: str, kind: str, n_rows: int) -> dict[str, float | str]:
    """Return one side's numbers, in this process."""
    tokenizer = load_tokenizer(ModelConfig())
    if kind == "chat":
        give_template(tokenizer, "chatml")
    encode = {"ours": ours, "plain": plain}[side](tokenizer, kind)
    rows, process = make_rows(kind, n_rows), psutil.Process()
    encode(rows.select(range(10)))  # what is loaded at first use
    gc.collect()
    before, wall, cpu = process.memory_info().rss, time.perf_counter(), time.process_time()
    features = encode(rows)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    gc.collect()
    grown = process.memory_info().rss - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    content, n_tokens = hashlib.sha256(), 0
    for feature in features:
        n_tokens += len(feature["input_ids"])
        content.update(np.array([*feature["input_ids"], *feature["labels"]], np.int32).tobytes())
    return {
        "bytes_per_token": grown / n_tokens,
        "peak_bytes_per_token": peak / n_tokens,
        "rows_per_s": n_rows / wall,
        "rows_per_cpu_s": n_rows / cpu,
        "tokens_per_row": n_tokens / n_rows,
        "sha256": content.hexdigest(),
    }


def compare(kind: str, n_rows: int, n_rounds: int) -> dict[str, Any]:
    """Return both sides' numbers of each round, medians, and the ratio of the rows a second of processor time."""
    rounds: dict[str, list[dict[str, Any]]] = {"ours": [], "plain": []}
    for _ in range(n_rounds):
        for side, done in rounds.items():
            command = [sys.executable, __file__, "--side", side, "--kind", kind, "--rows", str(n_rows)]
            done.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    if len({one["sha256"] for done in rounds.values() for one in done}) > 1:
        raise SystemExit(f"{kind}: the two ways gave other ids or labels: the comparison is void")
    names = [name for name in rounds["ours"][0] if name != "sha256"]
    numbers: dict[str, Any] = {
        side: {name: float(np.median([one[name] for one in done])) for name in names} for side, done in rounds.items()
    }
    pairs = zip(rounds["ours"], rounds["plain"], strict=True)
    ratios = np.array([one["rows_per_cpu_s"] / other["rows_per_cpu_s"] for one, other in pairs])
    return {**numbers, "speed_ratio": median_with_interval(ratios)}


def main() -> None:
    """Measure all kinds of rows and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=results_path("rows"))
    parser.add_argument("--side", choices=("ours", "plain"), help="measure this side alone and print its numbers")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0])
    arguments = parser.parse_args()
    if arguments.side is not None:
        print(json.dumps(measure(arguments.side, arguments.kind, arguments.rows)))
        return
    numbers = {}
    for kind in KINDS:
        numbers[kind] = found = compare(kind, arguments.rows, arguments.rounds)
        for side in ("ours", "plain"):
            told = ", ".join(f"{name} {value:.4g}" for name, value in found[side].items())
            print(f"{kind}, {side}: {told}")
        ratio = found["speed_ratio"]
        print(f"{kind}: ours encodes {ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] times as fast")
    write(arguments.out, {"rows": arguments.rows, "rounds": arguments.rounds, "tokenizer": "pocket"}, numbers)


if __name__ == "__main__":
    main()
