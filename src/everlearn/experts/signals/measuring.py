"""The three signals of a task, measured at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from everlearn.errors import ConfigError, check_number, describe
from everlearn.experts.base import linear_layers
from everlearn.experts.signals.context import FEATURES, Context
from everlearn.experts.signals.gradient import GradientSketch, row_sketches
from everlearn.experts.signals.layers import checked_layers, default_layers
from everlearn.experts.signals.passes import chosen, passes
from everlearn.experts.signals.text import TextSignal, input_text
from everlearn.models.load import Model
from everlearn.models.without import base_of
from everlearn.types import Rows, Task

if TYPE_CHECKING:
    from everlearn.experts.library import Library

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class SignalConfig:
    """How a task's signals are measured.

    Args:
        k_examples: rows of a task, at most. max_tokens: of a row, at most; of longer ones a language model's end and an
            encoder's start count.
        grad_sketch_layers: full names; auto: all linear layers of the lowest block of the network's upper third.
        sketch_size: numbers of the gradient sketch, over all layers.
        text_encoder: name of the model that reads descriptions, as `ModelConfig.name`; null: the base itself.
        text_inputs: the inputs of the example rows count beside the description.
        seed: of the sketch's projections, and of which rows are taken.
    """

    k_examples: int = 16
    max_tokens: int = 128
    grad_sketch_layers: str | list[str] = AUTO
    sketch_size: int = 256
    text_encoder: str | None = None
    text_inputs: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("signals: k_examples", self.k_examples, low=1)
        check_number("signals: max_tokens", self.max_tokens, low=4)
        check_number("signals: sketch_size", self.sketch_size, low=1)
        if isinstance(self.grad_sketch_layers, str) and self.grad_sketch_layers != AUTO:
            way_out = "Write auto, or a list of names; everlearn experts layers lists them"
            raise ConfigError(describe("grad_sketch_layers", "is unknown", self.grad_sketch_layers, way_out))


class Signals:
    """Measures the text, gradient and context signals of tasks with a model's base, whatever is added to it.

    Attributes:
        blocks: {text, gradient, context: how many numbers}, in the order in which they stand in a signal.
        settings: all that a signal's numbers depend on beside the task and the base; a JSON value.

    Raises:
        ConfigError: if the model is a plain module, or a layer has no such name. ModelError: if the encoder can't be
            loaded.
    """

    def __init__(self, model: Model, config: SignalConfig | None = None):
        if model.kind == "tensor":
            way_out = "Use a language model or an encoder"
            raise ConfigError(describe("signals", "a plain module reads no description", model.name, way_out))
        self.model, self.config = model, config or SignalConfig()
        known, names = linear_layers(model.adapters), self.config.grad_sketch_layers
        layers = checked_layers(default_layers(known) if names == AUTO else names, known)
        self._text = TextSignal(model, self.config.text_encoder, with_inputs=self.config.text_inputs)
        self._sketch = GradientSketch(model.network, layers, self.config.sketch_size, self.config.seed)
        self.blocks = {"text": self._text.width, "gradient": self.config.sketch_size, "context": len(FEATURES)}
        self.settings: dict[str, Any] = {
            "blocks": self.blocks, "grad_sketch_layers": list(layers), "text_encoder": self.config.text_encoder,
            "text_inputs": self.config.text_inputs, "max_tokens": self.config.max_tokens, "seed": self.config.seed,
        }  # fmt: skip

    @property
    def dimension(self) -> int:
        """How many numbers a signal has."""
        return sum(self.blocks.values())

    def of(self, description: str, task: Task, rows: Rows) -> torch.Tensor:
        """Return the signal of a task, as it is kept as a prototype: raw, float32 [dimension] on the CPU.

        `Space` makes of it what is compared.

        Args:
            description: of the task, in words. rows: of which `k_examples` are taken, the same ones each time.

        Raises:
            ConfigError: if the description is empty, there are no rows, or they tell nothing: none has a target, all
                have the same label.
        Cost: a forward pass over the description; one over the rows, of an encoder two, and a backward pass down to
            the first of the layers.
        """
        rows = chosen(task, rows, self.config.k_examples, self.config.seed)
        if not rows:
            way_out = "Give a few; k_examples of them are taken"
            raise ConfigError(describe(f"signals: task {task.name!r}", "has no rows", len(rows), way_out))
        text, context = self._text.of(description, rows), Context()
        with base_of(self.model):
            found = passes(self.model, task, rows, self.config.max_tokens)
            sketches = row_sketches(self._sketch, self.model.network, found, context.add)
        for name in self._sketch.layers:
            if name not in sketches or not sketches[name].any():
                way_out = "Give rows with answers, of more than one label; or name other grad_sketch_layers"
                raise ConfigError(
                    describe(f"signals: task {task.name!r}", "no gradient reaches a layer", name, way_out)
                )
        return torch.cat([text, self._sketch.stored(sketches), context.signal()])

    def of_text(self, description: str) -> torch.Tensor:
        """Return the signal of a task of which nothing but its description is known: the other blocks are 0.

        Raises:
            ConfigError: if it is empty.
        """
        return self._padded(self._text.of(description, [])[None])[0]

    def of_rows(self, rows: Rows) -> torch.Tensor:
        """Return a signal for each row by what it asks alone [n_rows, dimension]: the other blocks are 0."""
        return self._padded(self._text.vectors([input_text(self.model, row) for row in rows]))

    def _padded(self, text: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(text, (0, self.dimension - text.shape[1]))

    def bind(self, library: "Library") -> None:
        """Let a library's profiles be measured like this from now on; see that they were, where it has some.

        Raises:
            ConfigError: if they were made otherwise, with what differs.
        """
        made = library.profiled_with or {}
        for name, value in self.settings.items():
            if made.get(name, value) != value:
                way_out = "Measure as the library's profiles were, or begin a new library"
                what = f"its profiles were made with {name} {made[name]!r}"
                raise ConfigError(describe(str(library.path), what, value, way_out))
        library.profile_with(self.settings)
