"""Context signal: a few numbers on a task's rows. How sure the base is, how long they are, how much they repeat."""

import torch

from everlearn.experts.signals.passes import Pass

QUANTILES = (0.1, 0.5, 0.9)
FEATURES = (
    "entropy_mean", "entropy_deviation", *(f"entropy_q{round(100 * q)}" for q in QUANTILES),
    "log_tokens", "log_targets", "log_perplexity", "type_token_ratio",
)  # fmt: skip
# what they are like, and how far they lie apart, over tasks in general: they count while a library knows few tasks
TYPICAL = (2.5, 1.9, 0.2, 2.3, 5.0, 4.2, 1.5, 4.0, 0.3)
SPREAD = (1.0, 0.4, 0.3, 1.2, 1.2, 0.7, 0.9, 2.0, 0.2)


class Context:
    """Collects what passes tell."""

    def __init__(self) -> None:
        self._passes: list[Pass] = []

    def add(self, one: Pass) -> None:
        """Take what a pass tells, without its graph."""
        self._passes.append(Pass(one.losses.detach().cpu(), one.entropies, one.tokens, one.n_targets))

    def signal(self) -> torch.Tensor:
        """Return the signal, float32 [len(FEATURES)].

        - entropy: of the base's predictions (next tokens; of an encoder, classes), nats, over all places of all rows;
        - log_tokens, log_targets: logarithms of the mean length of a row and of its targets (the answer), tokens;
        - log_perplexity: mean over rows of the mean loss of their targets, nats;
        - type_token_ratio: of all rows together.
        """
        entropies = torch.cat([one.entropies for one in self._passes]).float()
        tokens = [row for one in self._passes for row in one.tokens]
        n_tokens = sum(map(len, tokens))
        n_targets = torch.cat([one.n_targets for one in self._passes]).float().mean()
        spread = entropies.std(correction=0)
        return torch.stack([
            entropies.mean(), spread, *entropies.quantile(torch.tensor(QUANTILES)),
            torch.tensor(n_tokens / len(tokens)).log(), n_targets.clamp(min=1).log(),
            torch.cat([one.losses for one in self._passes]).mean(),
            torch.tensor(len({token for row in tokens for token in row}) / n_tokens),
        ])  # fmt: skip
