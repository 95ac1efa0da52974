"""What a policy is updated by: answers in one forward pass, and the loss of their tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from everlearn.models.objectives import Batch, item_losses, mean_loss
from everlearn.rl.critic import Critic
from everlearn.rl.losses import divergences, entropies, policy_losses, value_losses
from everlearn.rl.rollouts import Answered
from everlearn.types import Outputs, Step

if TYPE_CHECKING:
    from everlearn.learners.ppo import PPO
    from everlearn.way import Run


@dataclass
class Micro:
    """What is learned in one forward pass: answers to some problems, or (answered None) rows as they stand.

    Tensors have a number for each target [n_items]: how much it counts, its advantage, and what policy, reference and
    critic said of it before the update.
    """

    batch: Batch
    answered: list[Answered] | None
    rows: list[tuple[int, int]]
    counts: torch.Tensor
    advantages: torch.Tensor | None = None
    old: torch.Tensor | None = None
    reference: torch.Tensor | None = None
    values: torch.Tensor | None = None
    returns: torch.Tensor | None = None


class Tally:
    """Means over an iteration's tokens of what the steps saw."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.n = 0.0

    def add(self, counts: torch.Tensor, **values: torch.Tensor) -> None:
        """Add values of tokens [n_items], each of which counts so often."""
        self.n += counts.sum().item()
        for name, of_tokens in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + (counts * of_tokens.detach()).sum().item()

    def means(self, run: "Run") -> dict[str, float]:
        """Return the means over all processes."""
        n = run.processes.sum(self.n)
        names = sorted({name for names in run.processes.gather(list(self.sums)) for name in names})
        return {name: run.processes.sum(self.sums.get(name, 0.0)) / n for name in names} if n else {}


class PolicyLoss:
    """PPO's loss, a mean over the tokens of all answers, as often as each was drawn; see `StepLoss`.

    Args:
        share: of the iteration's tokens, those learned from; the loss of the others is 0.
    """

    def __init__(self, ppo: "PPO", run: "Run", micros: list[Micro], critic: Critic | None, tally: Tally, share: float):
        self.ppo, self.micros, self.critic, self.tally = ppo, micros, critic, tally
        n_items = run.processes.sum(sum(len(micro.counts) for micro in micros))
        total = run.processes.sum(sum(micro.counts.sum().item() for micro in micros))
        self.scale = share * n_items / total if total else 1.0

    def weights(self, number: int, outputs: Outputs) -> torch.Tensor:
        return self.micros[number].counts * self.scale

    def mean(self, number: int, step: Step) -> torch.Tensor:
        ppo, micro = self.ppo, self.micros[number]
        if micro.answered is None:
            return mean_loss(step.outputs, step.weights) + self.idle(step.batch)
        log_p = log_p_of(step.outputs, ppo.temperature)
        old = log_p.detach() if micro.old is None else micro.old
        losses = policy_losses(log_p, old, micro.advantages, ppo.clip_low, ppo.clip_high)
        with torch.set_grad_enabled(ppo.entropy > 0):
            entropy = entropies(step.outputs.logits.float() / ppo.temperature)
        ratio = (log_p.detach() - old).exp()
        clipped = ((ratio < 1 - ppo.clip_low) | (ratio > 1 + ppo.clip_high)).float()
        told = {"policy_loss": losses, "entropy": entropy, "clipped": clipped}
        if ppo.entropy > 0 and self._is_low(entropy, micro.counts):
            losses = losses - ppo.entropy * entropy
        if micro.reference is not None:
            told["kl"] = divergences(log_p, micro.reference)
            losses = losses + ppo.kl * told["kl"]
        if self.critic is not None:
            told["value_loss"] = value_losses(
                self.critic.values(step.batch), micro.values, micro.returns, ppo.value_clip
            )
            losses = losses + told["value_loss"]
        self.tally.add(micro.counts, **told)
        return (step.weights * losses).mean()

    def idle(self, batch: Batch) -> torch.Tensor | float:
        if self.critic is None or not self.critic.is_sharded:
            return 0.0
        return 0.0 * self.critic.values(batch).sum()

    def _is_low(self, entropy: torch.Tensor, counts: torch.Tensor) -> bool:
        target = self.ppo.entropy_target
        return target is None or bool((counts * entropy.detach()).sum() < target * counts.sum())


def log_p_of(outputs: Outputs, temperature: float) -> torch.Tensor:
    """Return the log-probability of each target at a temperature [n_items], float32."""
    if temperature == 1:
        return -item_losses(outputs)
    return -item_losses(Outputs(outputs.logits.float() / temperature, outputs.targets, outputs.owners))
