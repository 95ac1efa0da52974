"""Which meta-learning algorithm, and its settings."""

from dataclasses import dataclass, fields

from everlearn.errors import ConfigError, check_choice, check_number, describe

ALGORITHMS = ("maml", "reptile", "oml", "anml", "mer", "joint")
OUTER_OPTIMIZERS = ("adam", "sgd")
EPISODIC = ("n_support", "n_query", "inner_batch_size", "outer_optimizer", "clip")
FOREIGN = {  # settings that mean nothing to an algorithm
    "maml": ("within_lr", "memory_size"),
    "reptile": ("within_lr", "memory_size", "first_order", "adapted"),
    "oml": ("within_lr", "memory_size"),
    "anml": ("within_lr", "memory_size"),
    "mer": (*EPISODIC, "first_order", "adapted"),
    "joint": ("within_lr", "memory_size", "first_order", "adapted"),
}


@dataclass(frozen=True)
class MetaConfig:
    """How to learn to learn. A setting that an algorithm has no use for is refused.

    Args:
        algorithm: `maml`, `reptile`: a start from which a few steps on one task go far. `oml`, `anml`: a
            representation, or a gate, with which steps on one row after another, over several tasks, forget little.
            `mer`: learn a stream of rows once, with a memory. `joint`: plain training on the same rows, the control.
        inner_lr: of the gradient steps on a task (MER's alpha).
        outer_lr: of the steps on the weights that they start from (Reptile's epsilon, MER's gamma).
        adaptation_steps: gradient steps on a task (MER's k: rows in a batch).
        first_order: leave second derivatives out.
        meta_batch_size: tasks in an outer step; for OML and ANML tasks that follow each other in it; MER's s: batches.
        n_support: rows that a task is learned from, at most as many as the steps reach. n_query: rows that the result
            is judged by.
        inner_batch_size: rows of an inner step; null: all `n_support`, and 1 for OML and ANML. Dealt in turn.
        adapted: what moves in the inner loop: parts of parameter names, or auto: all; for OML the last linear layer
            (LoRA: the last block's adapters); for ANML all but modules named `gate`.
        outer_optimizer: adam or sgd; null: adam, and sgd for Reptile, whose formula it is.
        clip: largest norm of the outer gradient, or null.
        within_lr: MER's beta. memory_size: rows in MER's memory.
        vectorize: take the tasks of a plain module at once with `torch.vmap`; false where its code can't.
    """

    algorithm: str = "maml"
    inner_lr: float = 0.01
    outer_lr: float = 0.001
    adaptation_steps: int = 5
    first_order: bool = False
    meta_batch_size: int = 4
    n_support: int = 10
    n_query: int = 10
    inner_batch_size: int | None = None
    adapted: str | list[str] = "auto"
    outer_optimizer: str | None = None
    clip: float | None = None
    within_lr: float = 0.03
    memory_size: int = 200
    vectorize: bool = True

    def __post_init__(self) -> None:
        check_choice("learner.algorithm", self.algorithm, ALGORITHMS)
        for name in ("inner_lr", "outer_lr", "within_lr"):
            check_number(f"learner.{name}", getattr(self, name), above=0)
        for name in ("adaptation_steps", "meta_batch_size", "n_support", "n_query", "memory_size"):
            check_number(f"learner.{name}", getattr(self, name), low=1)
        if self.inner_batch_size is not None:
            check_number("learner.inner_batch_size", self.inner_batch_size, low=1, high=self.n_support)
        if self.outer_optimizer is not None:
            check_choice("learner.outer_optimizer", self.outer_optimizer, OUTER_OPTIMIZERS)
        if self.clip is not None:
            check_number("learner.clip", self.clip, above=0)
        if isinstance(self.adapted, str) and self.adapted != "auto":
            way_out = "Write auto, or a list of parts of parameter names"
            raise ConfigError(describe("learner.adapted", "is unknown", self.adapted, way_out))
        defaults = {field.name: field.default for field in fields(self)}
        for name in FOREIGN[self.algorithm]:
            if getattr(self, name) != defaults[name]:
                way_out = "Leave it out, or choose another algorithm"
                what = f"means nothing to {self.algorithm}"
                raise ConfigError(describe(f"learner.{name}", what, getattr(self, name), way_out))

    @property
    def is_online(self) -> bool:
        """Whether tasks follow each other within the inner loop."""
        return self.algorithm in ("oml", "anml")

    @property
    def inner_rows(self) -> int:
        """Rows of an inner step."""
        return self.inner_batch_size or (1 if self.is_online else self.n_support)

    @property
    def n_learned(self) -> int:
        """Rows of a task that the inner steps reach."""
        return min(self.n_support, self.adaptation_steps * self.inner_rows)
