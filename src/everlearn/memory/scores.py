"""What the model makes of rows: their losses, uncertainties, embeddings and gradients; in evaluation mode, shared out
over processes, one line a row in the order of the rows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ModelError, describe
from everlearn.learners.gradients import at_loss_scale
from everlearn.memory.selection import entropies, margins
from everlearn.models.adapters import language_model
from everlearn.models.objectives import IGNORED, Batch, item_losses, mean_loss, to_device
from everlearn.models.positions import at_wanted, positions_to_keep
from everlearn.seeds import seed_for
from everlearn.streams.sampling import select_rows
from everlearn.types import Outputs, Rows, Task

if TYPE_CHECKING:
    from everlearn.models.load import Model
    from everlearn.way import Run

SKETCH_WIDTH = 1024  # of longer gradients; a cosine is then off by about 1 / sqrt(1024) = 0.03


def row_losses(run: "Run", task: Task, rows: Rows, batch_size: int) -> torch.Tensor:
    """Return the mean loss of each row over its targets [n], nats."""
    return _of_items(run, task, rows, batch_size, item_losses)


def row_entropies(run: "Run", task: Task, rows: Rows, batch_size: int) -> torch.Tensor:
    """Return the mean predictive entropy of each row over its targets [n], nats."""
    return _of_items(run, task, rows, batch_size, lambda outputs: entropies(outputs.logits, outputs.family))


def row_margins(run: "Run", task: Task, rows: Rows, batch_size: int) -> torch.Tensor:
    """Return for each row by how much the likeliest class is likelier than the next, a mean over its targets [n]."""
    return _of_items(run, task, rows, batch_size, lambda outputs: margins(outputs.logits, outputs.family))


def row_embeddings(run: "Run", task: Task, rows: Rows, batch_size: int) -> torch.Tensor:
    """Return what the output layer reads of each row, at unit length [n, width].

    For language models and taggers the mean over the positions that have a target.

    Raises:
        ModelError: if the model has no linear output layer.
    """
    with _watching(_output_layer(run)) as seen:

        def measure(batch: Batch, n: int) -> torch.Tensor:
            run.model.objective.forward(run.model.network, batch)
            return F.normalize(_pooled(run.model, seen.pop().float(), batch), dim=1)

        with torch.no_grad():
            return _over_batches(run, task, rows, batch_size, measure)


def row_gradients(run: "Run", task: Task, rows: Rows) -> torch.Tensor:
    """Return each row's gradient of its mean loss by the trainable parameters [n, width].

    Gradients longer than SKETCH_WIDTH are sketched: each entry is added, with a random sign, to one of SKETCH_WIDTH
    sums; inner products stay the same in expectation. `.grad` is left alone.

    Cost: a forward and backward pass a row; for sketches 8 bytes a parameter.
    Source: count sketch, Charikar et al. 2002.
    """
    parameters = list(run.model.adapters.trainable().values())
    sketch = _Sketch(parameters)

    def measure(batch: Batch, n: int) -> torch.Tensor:
        if run.model.objective.n_items(batch) == 0:
            return sketch([None] * len(parameters))[None]

        def compute(scale: float) -> list[torch.Tensor | None]:
            with torch.enable_grad():
                loss = mean_loss(run.model.objective.forward(run.model.network, batch)) * scale
            return list(torch.autograd.grad(loss, parameters, allow_unused=True))

        return sketch(at_loss_scale(run, compute))[None]

    return _over_batches(run, task, rows, 1, measure)


class _Sketch:
    """Adds up a gradient's entries, laid end to end, in a few sums; the same ones in every process."""

    def __init__(self, parameters: list[nn.Parameter]):
        sizes = [p.numel() for p in parameters]
        self.plain = sum(sizes) <= SKETCH_WIDTH
        self.parameters = parameters
        if self.plain:
            return
        generator = torch.Generator().manual_seed(seed_for("sketch", sum(sizes)))
        device = parameters[0].device
        self.places = [
            torch.randint(SKETCH_WIDTH, (n,), generator=generator, dtype=torch.int32).to(device) for n in sizes
        ]
        self.signs = [torch.randint(2, (n,), generator=generator).mul(2).sub(1).float().to(device) for n in sizes]

    def __call__(self, gradients: Sequence[torch.Tensor | None]) -> torch.Tensor:
        if self.plain:
            filled = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, gradients, strict=True)]
            return torch.cat([g.flatten().float() for g in filled])
        sums = torch.zeros(SKETCH_WIDTH, device=self.parameters[0].device)
        for gradient, places, signs in zip(gradients, self.places, self.signs, strict=True):
            if gradient is not None:
                sums.index_add_(0, places, gradient.flatten().float() * signs)
        return sums


def _of_items(
    run: "Run", task: Task, rows: Rows, batch_size: int, measure: Callable[[Outputs], torch.Tensor]
) -> torch.Tensor:
    def mean_of_rows(batch: Batch, n: int) -> torch.Tensor:
        outputs = run.model.objective.forward(run.model.network, batch)
        values = measure(outputs)
        sums = torch.zeros(n, dtype=values.dtype, device=values.device).index_add_(0, outputs.owners, values)
        return sums / torch.bincount(outputs.owners, minlength=n).clamp(min=1)

    with torch.no_grad():
        return _over_batches(run, task, rows, batch_size, mean_of_rows)


def _over_batches(
    run: "Run", task: Task, rows: Rows, batch_size: int, measure: Callable[[Batch, int], torch.Tensor]
) -> torch.Tensor:
    """Return `measure(batch, rows in it)` of all batches on the CPU; a batch is the same whichever process takes it."""
    objective, done = run.model.objective, {}
    with run.model.evaluating(), run.accelerator.autocast():
        for number, low in enumerate(range(0, len(rows), batch_size)):
            if number % run.processes.size == run.processes.rank:
                picked = select_rows(rows, range(low, min(low + batch_size, len(rows))))
                features = objective.encode(picked, task)
                batch = objective.collate(objective.take(features, list(range(len(picked)))))
                done[number] = measure(to_device(batch, run.accelerator.device), len(picked)).cpu()
    together = {number: values for part in run.processes.gather(done) for number, values in part.items()}
    return torch.cat([together[number] for number in sorted(together)]) if together else torch.zeros(0)


def _output_layer(run: "Run") -> nn.Module:
    """Return the module whose input is the embedding: the heads, the language model's head, or the last linear map."""
    network = run.model.network
    if run.model.adapters.head is not None:
        return run.model.adapters.head
    if run.model.kind == "causal":
        found = language_model(network).get_output_embeddings()
    else:
        linear = [m for name, m in network.named_modules() if isinstance(m, nn.Linear) and ".lora_" not in name]
        found = linear[-1] if linear else None
    if found is None:
        way_out = "Choose another selection, or a model that ends in a linear layer"
        raise ModelError(describe("embeddings", "the model has no output layer", run.model.name, way_out))
    return found


@contextmanager
def _watching(layer: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect what a layer reads."""
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _pooled(model: "Model", features: torch.Tensor, batch: Batch) -> torch.Tensor:
    if model.kind == "causal":
        wanted = model.objective.wanted(batch)
        features = at_wanted(features, wanted, positions_to_keep(model.network, wanted))
        sums = features.new_zeros(len(wanted), features.shape[1]).index_add_(0, wanted.nonzero()[:, 0], features)
        return sums / wanted.sum(1, keepdim=True).clamp(min=1)
    if model.kind == "tensor" or features.ndim == 2:
        return features.flatten(1)
    used = (batch["labels"] != IGNORED).unsqueeze(-1)
    return (features * used).sum(1) / used.sum(1).clamp(min=1)
