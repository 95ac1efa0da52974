"""A library of experts: opening 1,000 of them, what they take in memory, and swapping one into a model.

    OMP_NUM_THREADS=1 python benchmarks/experts.py [--only pocket] [--out FILE]

Each expert has weights of its own (random, rank 8 on all linear layers) and a prototype. Opening is timed in processes
of their own that have imported everything, on files that the system has in memory; it reads the records, the profiles
and the sizes of all files. A swap fills the slot of another expert: its file is read, hashed and copied; beside it
peft's `load_adapter` of the same folder into a model that holds as many adapters.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from paired import median_with_interval, write
from peft import LoraConfig
from workload import results_path

from everlearn.experts import Learned, Library, Lora, Merge, Slots
from everlearn.experts.base import Base
from everlearn.experts.lora import PREFIX
from everlearn.experts.merging import merged
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from everlearn.types import Task

RANK, DIMENSION, MAX_LOADED, N_SWAPS, N_OPENINGS, N_PEFT = 8, 512, 8, 50, 9, 8
N_EXPERTS = {"pocket": 1000, "smollm2": 12}  # of each base; those of smollm2 have 10 MB each


def make_lora(base: Base, seed: int, name: str) -> Lora:
    """Return a random LoRA on all linear layers."""
    generator = torch.Generator().manual_seed(seed)
    targets = sorted({layer.rpartition(".")[2] for layer in base.layers})
    tensors = {}
    for layer, (outputs, inputs) in base.layers.items():
        tensors[f"{PREFIX}{layer}.lora_A.weight"] = torch.randn(RANK, inputs, generator=generator)
        tensors[f"{PREFIX}{layer}.lora_B.weight"] = 0.01 * torch.randn(outputs, RANK, generator=generator)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, base_model_name_or_path=name)
    return Lora(config, tensors)


def fill(library: Library, n_experts: int) -> float:
    """Add experts, a hundred in a change; return the seconds that one more takes by itself at the end."""
    name = library.base.name
    for first in range(0, n_experts, 100):
        with library.changing():
            for number in range(first, min(first + 100, n_experts)):
                prototype = torch.randn(DIMENSION, generator=torch.Generator().manual_seed(number))
                learned = Learned(task=f"task {number}", n_rows=250, prototype=prototype)
                library.add(make_lora(library.base, number, name), f"Answers {number} " + "x" * 200, learned=[learned])
    lora = make_lora(library.base, n_experts, name)
    started = time.perf_counter()
    library.add(lora, "one more")
    return time.perf_counter() - started


def opening(folder: Path, pipe: Connection) -> None:
    """Open a library and lay its profiles in one matrix; send the seconds, and the bytes that this process grew by."""
    before, started, used = memory(), time.perf_counter(), time.thread_time()
    library = Library.open(folder)
    damaged = library.damaged()
    vectors = library.prototypes().vectors
    pipe.send({
        "open_s": time.perf_counter() - started, "open_cpu_s": time.thread_time() - used,
        "grown_bytes": memory() - before,
        "profiles_bytes": vectors.nbytes, "experts": len(library), "damaged": len(damaged),
    })  # fmt: skip


def memory() -> int:
    """Return the resident memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def openings(folder: Path) -> list[dict[str, Any]]:
    """Return what `opening` finds, once for each process."""
    context, found = multiprocessing.get_context("fork"), []
    for _ in range(N_OPENINGS):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=opening, args=(folder, theirs))
        child.start()
        found.append(ours.recv())
        child.join()
    return found


def swaps(model: Model, library: Library) -> dict[str, list[float]]:
    """Return seconds, by the clock and of the processor, of loading an expert that isn't there, of one that is, and of
    peft's way with the same expert."""  # fmt: skip
    slots, times = Slots(model, library), defaultdict(list)
    numbers = [expert.number for expert in library.experts]
    warnings.filterwarnings("ignore", category=FutureWarning)

    def timed(name: str, work: Callable[[], Any]) -> None:
        started, used = time.perf_counter(), time.thread_time()
        work()
        times[f"{name}_s"].append(time.perf_counter() - started)
        times[f"{name}_cpu_s"].append(time.thread_time() - used)

    for i in range(N_SWAPS):
        number = numbers[i % len(numbers)]
        timed("swap", lambda number=number: slots.load(number))
        timed("hit", lambda number=number: slots.load(number))
        if i < N_PEFT:
            folder, name = str(library.folder(number)), f"peft{i:03d}"
            timed("peft", lambda f=folder, n=name: model.network.load_adapter(f, n, low_cpu_mem_usage=True))
    return times


def merges(library: Library) -> dict[str, float]:
    """Return the processor's seconds of merging two experts, each way once."""
    loras = [library.lora(expert.number) for expert in library.experts[:2]]
    found = {}
    for kind in ("cat", "svd"):
        used = time.thread_time()
        merged(loras, Merge(kind), library.base)
        found[f"merge_{kind}_cpu_s"] = time.thread_time() - used
    return found


def measure(name: str, n_experts: int) -> dict[str, Any]:
    """Return the numbers of a library of a model."""
    model = load_model(ModelConfig(name, AdapterConfig(rank=RANK)), [Task("any", "prompt", [], [])])
    with tempfile.TemporaryDirectory() as place:
        library = Library.create(Path(place) / "library", model, rank=RANK, max_loaded=MAX_LOADED)
        add_s = fill(library, n_experts)
        found = openings(library.path)
        numbers = {name: median_with_interval([one[name] for one in found]) for name in ("open_s", "open_cpu_s")}
        numbers |= {name: median_with_interval(values) for name, values in swaps(model, library).items()}
        return numbers | merges(library) | {
            "add_s": add_s,
            "grown_bytes": max(one["grown_bytes"] for one in found),
            "profiles_bytes": found[0]["profiles_bytes"],
            "expert_bytes": library.expert(0).n_bytes,
            "library_json_bytes": (library.path / "library.json").stat().st_size,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=N_EXPERTS, help="one of the models")
    parser.add_argument("--out", type=Path, default=results_path("experts"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {name: n for name, n in N_EXPERTS.items() if arguments.only in (None, name)}
    numbers = {name: measure(name, n_experts) for name, n_experts in chosen.items()}
    config = {"experts": chosen, "rank": RANK, "dimension": DIMENSION, "max_loaded": MAX_LOADED}
    write(arguments.out, config, numbers)
    print(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
