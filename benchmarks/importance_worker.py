"""What Avalanche and opacus find on given weights and rows; benchmarks/importance.py asks, in files of tensors.

    python benchmarks/importance_worker.py IN.pt OUT.pt

Runs in the environment of benchmarks/avalanche_worker.py, with `pip install --no-deps opacus==1.6.0 opt_einsum` added.
"""

import sys
import warnings
from types import SimpleNamespace

import torch
from avalanche_worker import declare_operators
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore")


def mas(network: nn.Module, x: torch.Tensor, y: torch.Tensor, batch_size: int) -> dict[str, torch.Tensor]:
    """Return Avalanche's MAS importance, in batches of that size."""
    from avalanche.training.plugins import MASPlugin

    rows = torch.utils.data.TensorDataset(x, y, torch.zeros_like(y))
    strategy = SimpleNamespace(
        experience=SimpleNamespace(dataset=rows), model=network, device="cpu", train_mb_size=batch_size,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
    )  # fmt: skip
    return {name: found.data.detach().clone() for name, found in MASPlugin()._get_importance(strategy).items()}


def si_movement(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the path integral that Avalanche's SI has after an epoch on the rows, all of it laid end to end."""
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.training.plugins import EvaluationPlugin, SynapticIntelligencePlugin
    from avalanche.training.supervised import SynapticIntelligence

    strategy = SynapticIntelligence(
        model=network, optimizer=torch.optim.SGD(network.parameters(), lr=0.1), criterion=nn.CrossEntropyLoss(),
        si_lambda=1.0, train_mb_size=8, train_epochs=1, evaluator=EvaluationPlugin(loggers=[]),
    )  # fmt: skip
    (experience,) = tensors_benchmark(train_tensors=[(x, y)], test_tensors=[(x, y)], task_labels=[0]).train_stream
    strategy.train(experience, num_workers=0)
    (plugin,) = (plugin for plugin in strategy.plugins if isinstance(plugin, SynapticIntelligencePlugin))
    return torch.cat([found.data.flatten() for found in plugin.syn_data["cum_trajectory"].values()])


def squares(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the sum over rows of each row's squared gradient of the cross-entropy, by opacus."""
    from opacus.grad_sample import GradSampleModule

    sampled = GradSampleModule(network, loss_reduction="sum")
    F.cross_entropy(sampled(x), y, reduction="sum").backward()
    return {name: p.grad_sample.square().sum(0) for name, p in network.named_parameters()}


def main() -> None:
    """Read weights and rows, write what is found."""
    declare_operators()
    import avalanche
    import opacus

    given = torch.load(sys.argv[1])
    x, y = given["x"], given["y"]

    def network() -> nn.Module:
        made = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 10))
        made.load_state_dict(given["weights"])
        return made

    found = {
        "mas": {n: mas(network(), x, y, n) for n in given["batch_sizes"]},
        "squares": squares(network(), x, y),
        "si": si_movement(network(), x, y),
        "versions": {
            "avalanche": str(avalanche.__version__),
            "opacus": str(opacus.__version__),
            "torch": str(torch.__version__),
        },
    }
    torch.save(found, sys.argv[2])


if __name__ == "__main__":
    main()
