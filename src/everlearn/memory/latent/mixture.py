"""What is kept of a task: a mixture of Gaussians over its rows' codes and lengths, and prototypes of kinds of rows."""

import math
import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from everlearn.memory.latent.generator import NOISE

# weights [k]; means, deviations [k, n_numbers]; of a conditioned one prototypes [n_kinds, width] and kinds [k], int64,
# the number of each component's
Mixture = dict[str, torch.Tensor]

LEAST_ROWS = 4  # of a kind that has a mixture of its own


@dataclass(frozen=True)
class Drawn:
    """Rows drawn from a mixture. codes [n, n_slots, code_size]; lengths, n_targets [n], int64; prototypes [n, width],
    or None."""  # fmt: skip

    codes: torch.Tensor
    lengths: torch.Tensor
    n_targets: torch.Tensor
    prototypes: torch.Tensor | None

    def to(self, device: torch.device) -> "Drawn":
        """Return the rows on a device."""
        return Drawn(*(value if value is None else value.to(device) for value in vars(self).values()))


def fit_mixture(
    codes: torch.Tensor, lengths: torch.Tensor, n_targets: torch.Tensor, n_components: int, seed: int
) -> Mixture:
    """Return a mixture with diagonal covariances over codes and the logarithms of lengths and numbers of targets.

    No deviation is below NOISE, by which codes were blurred when the decoder learned to read them, so that no row is
    kept as a point.

    Args:
        codes: [n, n_slots, code_size]; lengths, n_targets: [n].
        n_components: at most; there are never more than one for LEAST_ROWS rows.

    Source: Ghosh et al. 2020, arXiv 1903.12436, sec. 4: an autoencoder's codes, whose density is fitted afterwards.
    """
    counts = torch.stack([lengths, n_targets], 1).double().log()
    numbers = torch.cat([codes.flatten(1).double(), counts], 1).cpu()
    if len(numbers) == 1:  # scikit-learn wants two
        numbers = numbers.repeat(2, 1)
    mixture = GaussianMixture(
        max(1, min(n_components, len(codes) // LEAST_ROWS)), covariance_type="diag", reg_covar=NOISE**2,
        init_params="k-means++", random_state=seed % 2**32,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what it has come to is a mixture all the same
        mixture.fit(numbers.numpy())
    fitted = {"weights": mixture.weights_, "means": mixture.means_, "deviations": mixture.covariances_**0.5}
    return {name: torch.from_numpy(values).float() for name, values in fitted.items()}


def fit_mixtures(
    codes: torch.Tensor,
    lengths: torch.Tensor,
    n_targets: torch.Tensor,
    kinds: torch.Tensor,
    prototypes: torch.Tensor,
    n_components: int,
    seed: int,
) -> Mixture:
    """Return one mixture out of those of each kind of row, by their shares; a component knows its kind's prototype.

    Args:
        kinds: number of each row's kind [n], int64. prototypes: [n_kinds, width].
    """
    parts = []
    for kind in range(len(prototypes)):
        own = kinds == kind
        part = fit_mixture(codes[own], lengths[own], n_targets[own], n_components, seed)
        part["weights"] = part["weights"] * own.float().mean().cpu()
        part["kinds"] = torch.full((len(part["weights"]),), kind)
        parts.append(part)
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {**joined, "prototypes": prototypes.cpu()}


def kinds_of(answers: Sequence[Hashable], n_kinds: int) -> torch.Tensor:
    """Return the number of each row's kind [n], int64: its answer among the most frequent ones, or all others' number.

    A kind has LEAST_ROWS rows: answers that fewer have are among the others, and where these are fewer they count as
    the first kind. Numbers begin at 0 and have no gap.
    """
    frequent = [answer for answer, n in Counter(answers).most_common(n_kinds) if n >= LEAST_ROWS]
    numbers = {answer: number for number, answer in enumerate(frequent)}
    n_others = sum(answer not in numbers for answer in answers)
    others = len(numbers) if n_others >= LEAST_ROWS else 0
    return torch.tensor([numbers.get(answer, others) for answer in answers])


def draw(mixture: Mixture, n: int, shape: tuple[int, int], longest: int, random: torch.Generator) -> Drawn:
    """Draw n rows.

    Args:
        shape: of a row's codes. longest: most positions of a row.
    """
    parts = torch.multinomial(mixture["weights"], n, replacement=True, generator=random)
    noise = torch.randn(n, mixture["means"].shape[1], generator=random)
    numbers = mixture["means"][parts] + mixture["deviations"][parts] * noise
    lengths, n_targets = numbers[:, -2:].clamp(max=math.log(longest)).exp().round().long().unbind(1)
    lengths = lengths.clamp(min=2)
    return Drawn(
        numbers[:, :-2].unflatten(1, shape),
        lengths,
        n_targets.clamp(min=1).minimum(lengths),
        mixture["prototypes"][mixture["kinds"][parts]] if "kinds" in mixture else None,
    )
