"""Times Avalanche's strategies in an environment of their own; benchmarks/strategies.py talks to it by lines of JSON.

The environment, away from everlearn's:

    python -m venv PLACE && PLACE/bin/pip install torch==2.13.0 torchvision==0.28.0 --no-deps
    PLACE/bin/pip install --no-deps avalanche-lib==0.6.0
    PLACE/bin/pip install numpy scikit-learn tqdm gputil torchmetrics quadprog psutil matplotlib setuptools pillow dill
    PLACE/bin/pip install gdown beautifulsoup4 wandb tensorboard pytorchcv xxhash "qpsolvers[quadprog]"

torchvision's wheel may not load its operators beside a CPU build of torch; Avalanche needs only their names.
"""

import contextlib
import importlib.util
import io
import json
import re
import sys
import time
import warnings
from pathlib import Path

import torch
from bare import BareLoop

warnings.filterwarnings("ignore")
N_ROWS, BATCH_SIZE, RATE = 3200, 64, 0.01


def declare_operators() -> None:
    """Declare the operators that torchvision's import looks for, where its library can't be loaded."""
    folder = Path(importlib.util.find_spec("torchvision").submodule_search_locations[0])
    text = (folder / "_meta_registrations.py").read_text()
    names = set(re.findall(r'register_meta\(\s*"(\w+)"', text)) | set(re.findall(r"torchvision::(\w+)", text))
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(names):
        library.define(f"{name}(Tensor x) -> Tensor")
    globals()["_library"] = library  # operators last as long as the library object


def rows(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random rows of one task."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(N_ROWS, 784, generator=generator), torch.randint(0, 10, (N_ROWS,), generator=generator)


def network() -> torch.nn.Module:
    """Return the MLP 784-256-256-10."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(256, 10))


def tensor_loss(network: torch.nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    """Return the cross-entropy."""
    return torch.nn.functional.cross_entropy(network(batch[0]), batch[1])


def bare_loop() -> BareLoop:
    """Return the bare loop over the second task."""
    twin = network()
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows(1)), batch_size=BATCH_SIZE, shuffle=True)
    return BareLoop(twin, torch.optim.SGD(twin.parameters(), lr=RATE), data, tensor_loss)


def now() -> tuple[float, float]:
    """Return wall and processor time."""
    return time.perf_counter(), time.thread_time()


def measure(name: str, n_epochs: int) -> dict:
    """Train two tasks; return [wall, processor] of each of the second one's steps and of the bare step after it."""
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.core import SupervisedPlugin
    from avalanche.training import supervised
    from avalanche.training.plugins import EvaluationPlugin

    class Timer(SupervisedPlugin):
        """Lets the bare loop take its step after each of Avalanche's."""

        def __init__(self):
            super().__init__()
            self.bare, self.first, self.second, self.started = None, [], [], (0.0, 0.0)

        def before_training_epoch(self, strategy, **options):
            self.started = now()

        def after_training_iteration(self, strategy, **options):
            if self.bare is None:
                return
            middle = now()
            self.bare.step()
            end = now()
            self.first.append([middle[i] - self.started[i] for i in (0, 1)])
            self.second.append([end[i] - middle[i] for i in (0, 1)])
            self.started = now()

    extra = {
        "Naive": {},
        "EWC": {"ewc_lambda": 1.0},
        "SI": {"si_lambda": 1.0},
        "LwF": {"alpha": 1.0, "temperature": 2.0},
        "GEM": {"patterns_per_exp": 256, "memory_strength": 0.5},
        "AGEM": {"patterns_per_exp": 256, "sample_size": 64},
        "Replay": {"mem_size": 500},
    }[name]
    classes = {"SI": "SynapticIntelligence"}
    timer, model = Timer(), network()
    strategy = vars(supervised)[classes.get(name, name)](
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=RATE),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=BATCH_SIZE,
        train_epochs=1,
        eval_mb_size=BATCH_SIZE,
        plugins=[timer],
        evaluator=EvaluationPlugin(loggers=[]),
        **extra,
    )
    stream = tensors_benchmark(train_tensors=[rows(0), rows(1)], test_tensors=[rows(5)], task_labels=[0, 0])
    first, second = stream.train_stream
    strategy.train(first, num_workers=0)
    strategy.train_epochs, timer.bare = n_epochs, bare_loop()
    strategy.train(second, num_workers=0)
    return {"first": timer.first, "second": timer.second}


def main() -> None:
    """Answer each line on standard input with one line."""
    torch.set_num_threads(1)
    declare_operators()
    import avalanche

    print(json.dumps({"avalanche": avalanche.__version__, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        with contextlib.redirect_stdout(io.StringIO()):
            answer = measure(asked["strategy"], asked["n_epochs"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
