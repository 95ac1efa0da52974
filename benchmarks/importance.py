"""Importances beside those of Avalanche and opacus, on the same weights and rows: where they agree, and where not.

    python benchmarks/importance.py --peer PYTHON [--out FILE]

PYTHON is the interpreter of another environment (benchmarks/importance_worker.py says how it is made). MAS: Avalanche
takes the absolute value of a batch's mean gradient, ours is the mean of the rows' absolute gradients: the same with one
row a batch. SI: on the CPU Avalanche's path integral is 0, since its old weights are views of the live ones. Squared
gradients, of which the Fisher is made: opacus' per-row gradients.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import torch
from fisher import relative_difference
from paired import write
from torch import nn
from workload import results_path, use_one_thread

from everlearn.functional.fisher import sum_of_squared_gradients
from everlearn.learners.devices import start_accelerator
from everlearn.learners.sft import SupervisedLearner
from everlearn.models.load import load_model
from everlearn.seeds import generator_for
from everlearn.strategies.mas import MAS
from everlearn.strategies.si import SI
from everlearn.types import Task, TensorRows
from everlearn.way import Run

N_ROWS, BATCH_SIZES = 64, (1, 8, 64)
Tensors = dict[str, torch.Tensor]


def total(found: Tensors) -> float:
    """Return the sum over all weights."""
    return sum(tensor.sum().item() for tensor in found.values())


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", required=True, help="python of an environment with Avalanche 0.6 and opacus")
    parser.add_argument("--out", type=Path, default=results_path("importance"))
    arguments = parser.parse_args()
    use_one_thread()
    generator = generator_for("benchmark", "importance")
    x, y = torch.randn(N_ROWS, 20, generator=generator), torch.randint(0, 10, (N_ROWS,), generator=generator)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 10))
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.pt", Path(folder) / "found.pt"
        torch.save({"weights": weights, "x": x, "y": y, "batch_sizes": BATCH_SIZES}, given)
        worker = Path(__file__).with_name("importance_worker.py")
        subprocess.run([arguments.peer, str(worker), str(given), str(found)], check=True, stdout=subprocess.DEVNULL)
        theirs = torch.load(found)
    task = Task("rows", "tensor", TensorRows(x, y), TensorRows(x, y))
    model = load_model(network, [task])
    si = SI()
    learner = SupervisedLearner(optimizer="sgd", learning_rate=0.1, batch_size=8, epochs=1, clip=None)
    run = Run(model, learner, [si], start_accelerator(device="cpu"), tasks={task.name: task})
    our_squares, _ = sum_of_squared_gradients(
        network,
        model.adapters.trainable(),
        [{"x": x, "y": y}],
        lambda batch: model.objective.forward(network, batch),
        "empirical",
    )
    our_mas = MAS(n_examples=None).estimate(run, task)
    run.learn(task)
    numbers = {
        "mas": {
            str(n): {
                "relative_difference": relative_difference(our_mas, theirs["mas"][n]),
                "sum_theirs_over_ours": total(theirs["mas"][n]) / total(our_mas),
            }
            for n in BATCH_SIZES
        },
        "squared_gradients": {"relative_difference": relative_difference(our_squares, theirs["squares"])},
        "si": {
            "largest_ours": max(f.max().item() for f in si.precision_.values()),
            "largest_theirs": theirs["si"].abs().max().item(),
        },
    }
    for name, values in numbers.items():
        print(name, values)
    write(arguments.out, {"rows": N_ROWS, "network": "20-16-10", "peer": theirs["versions"]}, numbers)


if __name__ == "__main__":
    main()
