"""PCGR, prototype-conditioned generative replay: as `cmt`, with a prototype for each class or answer."""

from dataclasses import dataclass

from everlearn.errors import check_number
from everlearn.memory.latent.replay import LatentReplay
from everlearn.registry import register


@register("strategy", "pcgr")
@dataclass
class PCGR(LatentReplay):
    """Replay hidden states that a generator makes of a kind of row, told by the prototype of its class or answer.

    All is as in `cmt`, but that the generator reads a prototype beside what it encodes and decodes: the mean hidden
    state of the task's rows that have the same answer (class, text, or set of tags). Each kind has a mixture of its
    own; rows are drawn by the kinds' shares.

    Args:
        replay_alpha, feature_alpha, layer, replay_batch_size, encoding_batch_size, slots, code_size, width, depth,
        epochs, learning_rate, max_rows, max_tokens: as in `cmt`.
        components: Gaussians of a kind's mixture, at most one for four rows.
        prototypes: most frequent answers of a task that have one; all others, and those of fewer than four rows, share
            one more (or the first, where they are fewer than four in all).

    A task that is learned again is known by its newest rows.

    Cost: that of `cmt`; keeps a prototype, 4 * width of the model bytes, and a mixture for each kind.

    Source: none published. Chen & Zeng 2025 (PCGR, NAACL 2025) condition a variational autoencoder that writes texts on
    a task's prototype; here hidden states are generated, of each class apart, and the backbone is frozen, so that
    prototypes don't move.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    components: int = 4
    prototypes: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("pcgr.prototypes", self.prototypes, low=1)

    @property
    def n_kinds(self) -> int:
        """How many answers have a prototype of their own."""
        return self.prototypes
