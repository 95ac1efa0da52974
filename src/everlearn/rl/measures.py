"""What is measured of a policy: how often it is right, how far it is from where it began, how much of it is asleep."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from everlearn.evaluation.score import is_right
from everlearn.learners.teacher import as_teacher
from everlearn.models.adapters import language_model
from everlearn.models.objectives import item_losses, to_device
from everlearn.rl.losses import divergences
from everlearn.rl.rollouts import Answered, cut, lay_out, n_cut_off
from everlearn.rl.sampler import Sampler
from everlearn.rl.server import ServerSampler
from everlearn.seeds import generator_for
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.way import Run

MICRO_TOKENS = 16384
DORMANT = 0.025  # of the mean activation of its layer, at most


@dataclass(frozen=True)
class Sampled:
    """Answers to a task's evaluation problems. outcomes: of each problem, the share of its answers that is right."""

    answered: list[Answered]
    outcomes: list[float]
    length: float
    cut_off: float


def sample_answers(
    run: "Run",
    sampler: Sampler | ServerSampler,
    task: Task,
    n: int,
    temperature: float,
    room: int,
    purpose: Sequence[object],
) -> Sampled:
    """Draw n answers to each of a task's evaluation problems; temperature 0 takes the likeliest tokens."""
    objective = run.model.objective
    questions = objective.questions(task.evaluation, room)
    drawn = sampler.draw(questions, n, room, generator_for(*purpose, task.name), temperature)
    answered, outcomes = [], []
    for number, (row, prompt, responses) in enumerate(zip(task.evaluation, questions, drawn, strict=True)):
        one = Answered.by(responses, objective, task, row, (0, number), prompt)
        one.right = [is_right(task, text, row, objective) for text in one.texts]
        answered.append(one)
        outcomes.append(sum(count for right, count in zip(one.right, one.counts, strict=True) if right) / n)
    n_drawn, n_tokens = n * len(drawn), sum(one.n_drawn_tokens for one in answered)
    return Sampled(answered, outcomes, n_tokens / n_drawn, n_cut_off(objective, drawn) / n_drawn)


def divergence(run: "Run", answered: Sequence[Answered], weights: dict[str, torch.Tensor], *, packed: bool) -> float:
    """Return an estimate of KL(policy || policy with other weights) in nats a token, on answers that the policy drew.

    Source: `everlearn.rl.losses.divergences`.
    """
    total = n = 0.0
    for part in cut(answered, MICRO_TOKENS, packed=packed):
        batch = to_device(lay_out(run.model, part, packed=packed), run.accelerator.device)
        counts = torch.tensor([c for one in part for c in one.of_tokens(one.counts)], device=run.accelerator.device)
        with torch.no_grad(), run.model.evaluating():
            log_p = -item_losses(run.model.objective.forward(run.model.network, batch))
        with as_teacher(run, weights):
            reference = -item_losses(run.model.objective.forward(run.model.network, batch))
        total += (counts * divergences(log_p, reference)).sum().item()
        n += counts.sum().item()
    return total / n


def dormant_share(run: "Run", answered: Sequence[Answered], *, packed: bool) -> float | None:
    """Return the share of the feed-forward layers' neurons whose mean activation is at most 0.025 of their layer's.

    None where the layers aren't found: they are the inputs of the last linear map of each module called `mlp`.

    Source: Sokar et al. 2023, arXiv 2302.12902, definition 3.1.
    """
    with _activations(language_model(run.model.network)) as seen:
        if not seen:
            return None
        for part in cut(answered, MICRO_TOKENS, packed=packed)[:1]:
            batch = to_device(lay_out(run.model, part, packed=packed), run.accelerator.device)
            with torch.no_grad(), run.model.evaluating():
                run.model.objective.forward(run.model.network, batch)
        asleep = [mean <= DORMANT * mean.mean() for mean in seen.values()]
    return torch.cat(asleep).float().mean().item()


@contextmanager
def _activations(network: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Give {layer: mean absolute activation of each neuron [n_neurons]}, filled by the next forward pass."""
    seen: dict[str, torch.Tensor] = {}
    hooks = []
    for name, module in network.named_modules():
        if name.rpartition(".")[2] != "mlp":
            continue
        maps = [child for child in module.children() if hasattr(child, "in_features")]
        if maps:
            seen[name] = torch.zeros(0)

            def see(layer: nn.Module, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
                seen[name] = inputs[0].detach().abs().float().flatten(0, -2).mean(0)

            hooks.append(maps[-1].register_forward_pre_hook(see))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
