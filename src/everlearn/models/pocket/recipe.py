"""The settings of the pocket model's pretraining, read strictly from a recipe."""

from dataclasses import dataclass
from pathlib import Path

from everlearn.config import from_mapping, read_yaml
from everlearn.errors import ConfigError, check_number, describe


@dataclass(frozen=True)
class PocketRecipe:
    """Sizes, data and schedule of one pretraining run. Tokens are counted without padding.

    `learning_rates` holds (share of the run done, rate) points; the rate runs straight between them.
    """

    seed: int = 0
    vocabulary_size: int = 1024
    tokenizer_documents: int = 40_000
    hidden_size: int = 256
    intermediate_size: int = 640
    n_layers: int = 5
    n_heads: int = 8
    n_kv_heads: int = 4
    max_tokens: int = 320  # longer documents are cut
    batch_tokens: int = 4096  # a batch's rows times its longest row
    opening_documents: int = 64  # documents of a step while the run opens with looking things up
    window_documents: int = 2048  # documents that are sorted by length and batched together after that
    total_tokens: int = 25_000_000
    learning_rates: tuple[tuple[float, ...], ...] = ((0, 3e-3), (0.31, 2.4e-3), (0.31, 1.6e-3), (1, 0))
    weight_decay: float = 0.05
    warmup_steps: int = 60
    clip_norm: float = 1.0
    prompt_weight: float = 0.06  # of a prompt token in the loss; an answer token weighs 1
    save_every_s: float = 120.0
    score_every_steps: int = 1000
    score_items: int = 40  # held-out items a family

    def __post_init__(self) -> None:
        for name in (
            "tokenizer_documents",
            "n_layers",
            "max_tokens",
            "opening_documents",
            "window_documents",
            "total_tokens",
        ):
            check_number(name, vars(self)[name], low=1)
        for name in ("warmup_steps", "prompt_weight", "weight_decay", "save_every_s"):
            check_number(name, vars(self)[name], low=0)
        check_number("vocabulary_size", self.vocabulary_size, low=300)  # 256 bytes, three special tokens, some words
        check_number("batch_tokens", self.batch_tokens, low=self.max_tokens)
        for name in ("clip_norm", "score_every_steps", "score_items"):
            check_number(name, vars(self)[name], above=0)
        self._check_rates()
        if self.hidden_size % self.n_heads or self.n_heads % self.n_kv_heads:
            got = (self.hidden_size, self.n_heads, self.n_kv_heads)
            way_out = "Make hidden_size a multiple of n_heads, and n_heads of n_kv_heads"
            raise ConfigError(describe("hidden_size, n_heads, n_kv_heads", "don't divide", got, way_out))

    def _check_rates(self) -> None:
        shares = [point[0] for point in self.learning_rates if len(point) == 2]
        if len(shares) < len(self.learning_rates) or shares != sorted(shares) or not shares or shares[0] != 0:
            way_out = "Write [share of the run, rate] points, the first at 0, shares rising"
            raise ConfigError(describe("learning_rates", "is no row of points", self.learning_rates, way_out))
        for _, rate in self.learning_rates:
            check_number("learning_rates", rate, low=0)


def load_pocket_recipe(path: Path) -> PocketRecipe:
    """Return the recipe in the YAML file `path`.

    Raises:
        ConfigError: if the file can't be read, or a key is unknown, of the wrong type or out of range.
    """
    return from_mapping(PocketRecipe, read_yaml(Path(path)), "")
