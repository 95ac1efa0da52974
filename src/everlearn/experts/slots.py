"""Slots: the few experts that a model holds. Adapters that are made once, and filled by copying weights."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from peft import ArrowConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.arrow import ArrowLoraLinearLayer
from torch import nn

from everlearn.errors import ConfigError, ModelError, describe
from everlearn.experts.base import linear_layers
from everlearn.experts.library import Library
from everlearn.experts.lora import PREFIX, Lora, lora_config
from everlearn.models.adapters import is_peft
from everlearn.models.load import Model
from everlearn.models.lora import PAST
from everlearn.registry import register
from everlearn.seeds import seed_for

if TYPE_CHECKING:
    from everlearn.models.adapters import Adapters

BASE = "__base__"  # peft's name, among `adapter_names`, for no adapter
_SLOT = "slot"


@register("operation", "slots")
def add_slots(adapters: "Adapters", *, n: int, rank: int, targets: list[str]) -> None:
    """Add `n` adapters slot00, slot01, ... of one rank beside the LoRA in training: empty, frozen and not in use.

    What they hold is a copy of what is on the disk, and no part of a run's state.
    """
    network: PeftModel = adapters.network
    before, flags = _active(network), _flags(network)
    like = network.peft_config[network.active_adapter]
    with torch.random.fork_rng():  # what peft draws is overwritten
        for number in range(n):
            network.add_adapter(f"{_SLOT}{number:02d}", lora_config(rank, rank, targets, like))
    _activate(network, before, flags)
    with torch.no_grad():
        for layer in _layers(network).values():
            for name in layer.lora_A:
                if name.startswith(_SLOT):
                    layer.lora_A[name].weight.zero_()
                    layer.lora_B[name].weight.zero_()


class Slots:
    """Experts of a library in a model that is on its way through tasks.

    The model's own LoRA is what is trained: `begin` sets it to nothing or to an expert, `trained` reads it for
    `Library.add` or `Library.adapt`. Beside it are at most `max_loaded` experts that answer: `answering` lets one
    answer, `mixed` another one for each row. Swapping one in copies its weights; names, modules and hooks stay.

    Attributes:
        loaded: {number: (slot, files that it was filled from)}, least recently used first.

    Args:
        model: with one LoRA, of the library's base. The slots are made by the operation `slots`, if there are none yet.

    Raises:
        ConfigError: if the model has no LoRA, or several. ModelError: if its layers aren't those of the library's base.
    """

    def __init__(self, model: Model, library: Library):
        adapters = model.adapters
        if not is_peft(adapters.network) or adapters.mode != "lora" or PAST in adapters.network.peft_config:
            way_out = "Use model.adapter.name: lora, and no method that begins new LoRAs"
            raise ConfigError(describe("experts", "need a model with one LoRA", adapters.mode, way_out))
        if linear_layers(adapters) != library.base.layers:
            way_out = f"Use it with {library.base.name!r}"
            raise ModelError(describe(str(library.path), "is of another base model", model.name, way_out))
        settings = library.settings
        if not any(operation == "slots" for operation, _ in adapters.log):
            adapters.do("slots", n=settings.max_loaded, rank=settings.rank, targets=list(settings.targets))
        self.model, self.library = model, library
        self.loaded: OrderedDict[int, tuple[str, Any]] = OrderedDict()
        self._own = adapters.network.active_adapter
        self._layers = _layers(adapters.network)
        names = {name for layer in self._layers.values() for name in layer.lora_A if name.startswith(_SLOT)}
        self._free = sorted(names, reverse=True)
        self._pinned: list[str] = []  # that answer now, or will again when a block ends

    @property
    def network(self) -> PeftModel:
        """The model's network."""
        return self.model.network

    def load(self, *numbers: int) -> list[str]:
        """Return the slots that hold these experts at the same time; the least recently used others make room.

        Raises:
            ConfigError: if they are more than there are slots. StateError: if one of them is damaged.
        Cost: of one that isn't there yet, its file is read, hashed and copied.
        """
        wanted = list(dict.fromkeys(numbers))
        n_slots = len(self._free) + len(set(self.loaded) - (set(self._answering()) - set(wanted)))
        if len(wanted) > n_slots:
            raise _too_few(n_slots, len(wanted))
        for number in [number for number in wanted if number in self.loaded]:
            if self.loaded[number][1] == self.library.expert(number).files:
                self.loaded.move_to_end(number)
            else:  # adapted since
                self.unload(number)
        for number in [number for number in wanted if number not in self.loaded]:
            lora = self.library.lora(number)
            slot = self._room()
            self._fill(lora, slot)
            self.loaded[number] = (slot, self.library.expert(number).files)
        return [self.loaded[number][0] for number in numbers]

    def unload(self, number: int) -> None:
        """Empty the slot of an expert; nothing happens where it isn't loaded."""
        if number in self.loaded:
            slot, _ = self.loaded.pop(number)
            self._clear(slot)
            self._free.append(slot)

    @contextmanager
    def answering(self, by: int | Lora | None) -> Iterator[None]:
        """Let an expert, or a LoRA that is in no library, answer in place of the one in training until the block ends.

        In a strategy: `run.until_scored.enter_context(slots.answering(number))` in `before_eval`.

        Args:
            by: an expert's number, or a LoRA; None: the base alone.
        """
        if isinstance(by, Lora):
            with self._holding(by):
                yield
        else:
            with self._active(*([] if by is None else self.load(by))):
                yield

    @contextmanager
    def _holding(self, lora: Lora) -> Iterator[None]:
        slot = self._room()
        try:
            self._fill(lora, slot)
            with self._active(slot):
                yield
        finally:
            self._clear(slot)
            self._free.append(slot)

    @contextmanager
    def composed(self, *numbers: int) -> Iterator[Callable[[Sequence[float]], None]]:
        """Let the weighted sum of experts answer; yields the function that sets the weights, which begin as 1/n each.

        They stand side by side in one slot, whose rank must be the sum of theirs, so that other weights cost no more
        than a pass over A: sum_i w_i s_i B_i A_i = [B_1 B_2 ...] [w_1 s_1 A_1; w_2 s_2 A_2; ...].

        Raises:
            ConfigError: if the slots' rank is too small. StateError: if an expert is damaged.
        """
        loras = [self.library.lora(number) for number in numbers]
        rank = sum(lora.rank for lora in loras)
        if rank > self.library.settings.rank:
            way_out = f"Make the library with a rank of {rank}, or compose fewer"
            what = f"the slots' rank is {self.library.settings.rank}, and together they need more"
            raise ConfigError(describe(f"experts {list(numbers)}", what, rank, way_out))
        slot, blocks = self._room(), []

        @torch.no_grad()
        def weigh(weights: Sequence[float]) -> None:
            for weight, block in zip(weights, blocks, strict=True):
                for rows, down in block:
                    torch.mul(down, weight, out=rows)

        try:
            blocks += self._lay(loras, slot)
            weigh([1 / len(loras)] * len(loras))
            with self._active(slot):
                yield weigh
        finally:
            self._clear(slot)
            self._free.append(slot)

    @contextmanager
    def arrow(self, *numbers: int, top_k: int = 2) -> Iterator[None]:
        """Let experts answer together, token by token and layer by layer, until the block ends.

        Each token goes to the `top_k` experts whose BA stretches its direction most: |x · v|, v being the first right
        singular vector of BA, softmax over the chosen. Nothing is fitted and no row is asked.

        Cost: each of the experts is computed for each token.
        Source: Arrow (Ostapenko et al. 2024, arXiv 2405.11157), as peft does it. Departs: peft's own wrapper would take
            every adapter of the network for an expert; here its layers are given the slots of these alone.
        """
        names, handles = self.load(*numbers), []
        config = ArrowConfig(top_k=min(top_k, len(names)), rng_seed=0)
        config.task_adapter_names, config.gks_adapter_names = names, []
        self._pinned += names
        try:
            for layer in self._layers.values():
                if names[0] in layer.lora_A:
                    routed = ArrowLoraLinearLayer(layer.in_features, config)
                    routed.build_prototypes(layer.lora_A, layer.lora_B)
                    handles.append(layer.register_forward_hook(_adding(routed)))
            with self.network.disable_adapter():
                yield
        finally:
            for handle in handles:
                handle.remove()
            del self._pinned[len(self._pinned) - len(names) :]

    @contextmanager
    def mixed(self, numbers: Sequence[int | None]) -> Iterator[list[str]]:
        """Load an expert for each row of a batch, None for the base alone; yields the `adapter_names` for peft.

            with slots.mixed([3, 7, None]) as names:
                network(**inputs, adapter_names=names)      # or network.generate(...)

        In evaluation mode only. If what is called raises, peft would leave its hooks in the network, and every later
        call would fail: they are taken away when the block ends.
        """
        slots = iter(self.load(*[number for number in numbers if number is not None]))
        hooks = {module: set(module._forward_pre_hooks) for module in self.network.modules()}
        try:
            yield [BASE if number is None else next(slots) for number in numbers]
        finally:
            for module, known in hooks.items():
                for key in set(module._forward_pre_hooks) - known:
                    del module._forward_pre_hooks[key]
                    module._forward_pre_hooks_with_kwargs.pop(key, None)

    def begin(self, number: int | None, seed: int) -> None:
        """Set the LoRA in training to nothing (B = 0, A drawn) or to what an expert adds, to go on from there.

        Where it has a larger rank than the expert, the rest begins as nothing. Its own scale stays: B takes what the
        expert's differs by.

        Raises:
            ConfigError: if the expert is larger than it, or stands on other layers.
        """
        lora = None if number is None else self.library.lora(number)
        own = {name: layer for name, layer in self._layers.items() if self._own in layer.lora_A}
        if lora is not None:
            self._check_room(number, lora, own)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed_for(seed, "lora"))
            for layer in own.values():
                layer.reset_lora_parameters(self._own, True)
            for name in lora.layers if lora is not None else ():
                layer, weights = own[f"{PREFIX}{name}"], lora.layer(name)
                rank = len(weights.down)
                layer.lora_A[self._own].weight[:rank].copy_(weights.down)
                layer.lora_B[self._own].weight[:, :rank].copy_(
                    weights.up * (weights.scaling / layer.scaling[self._own])
                )

    def trained(self) -> Lora:
        """Return a copy of the LoRA in training as it is now."""
        return Lora.of(self.network, self._own)

    @contextmanager
    def _active(self, *slots: str) -> Iterator[None]:
        before, flags = _active(self.network), _flags(self.network)
        self._pinned += slots
        try:
            self.network.base_model.set_adapter(list(slots), inference_mode=True)
            yield
        finally:
            del self._pinned[len(self._pinned) - len(slots) :]
            _activate(self.network, before, flags)

    def _room(self) -> str:
        """Return an empty slot; the expert leaves it that was used least recently and isn't answering."""
        if not self._free:
            idle = [number for number in self.loaded if number not in self._answering()]
            if not idle:
                raise _too_few(0, 1)
            self.unload(idle[0])
        return self._free.pop()

    def _answering(self) -> list[int]:
        return [number for number, (slot, _) in self.loaded.items() if slot in self._pinned]

    @torch.no_grad()
    def _fill(self, lora: Lora, slot: str) -> None:
        """Fill an empty slot; what lies beyond the expert's rank or layers stays zero."""
        for name in lora.layers:
            layer, weights = self._layers[f"{PREFIX}{name}"], lora.layer(name)
            rank = len(weights.down)
            layer.lora_A[slot].weight[:rank].copy_(weights.down)
            layer.lora_B[slot].weight[:, :rank].copy_(weights.up)
            layer.scaling[slot] = weights.scaling

    @torch.no_grad()
    def _lay(self, loras: Sequence[Lora], slot: str) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
        """Fill an empty slot with LoRAs side by side, of scale 1. What they don't reach stays zero.

        Returns:
            For each LoRA its rows of the layers' A, and what they are at weight 1, [rank, inputs] each.
        """
        filled: dict[str, int] = {}
        blocks = []
        for lora in loras:
            blocks.append([])
            for name in lora.layers:
                layer, weights = self._layers[f"{PREFIX}{name}"], lora.layer(name)
                first = filled.get(name, 0)
                part = slice(first, first + len(weights.down))
                rows = layer.lora_A[slot].weight.data[part]
                layer.lora_B[slot].weight[:, part].copy_(weights.up)
                layer.scaling[slot], filled[name] = 1.0, part.stop
                blocks[-1].append((rows, (weights.down * weights.scaling).to(rows)))
                rows.copy_(blocks[-1][-1][1])
        return blocks

    @torch.no_grad()
    def _clear(self, slot: str) -> None:
        for layer in self._layers.values():
            if slot in layer.lora_A:
                layer.lora_A[slot].weight.zero_()
                layer.lora_B[slot].weight.zero_()

    def _check_room(self, number: int, lora: Lora, own: dict[str, LoraLayer]) -> None:
        where = f"expert {number}"
        beyond = [name for name in lora.layers if f"{PREFIX}{name}" not in own]
        if beyond:
            way_out = "Train with model.adapter.targets: auto"
            raise ConfigError(
                describe(where, "stands on layers that the LoRA in training doesn't", beyond[:2], way_out)
            )
        rank = min(len(own[f"{PREFIX}{name}"].lora_A[self._own].weight) for name in lora.layers)
        if lora.rank > rank:
            way_out = f"Train with model.adapter.rank: {lora.rank}"
            raise ConfigError(
                describe(where, f"is larger than the LoRA in training, of rank {rank}", lora.rank, way_out)
            )


def _adding(routed: ArrowLoraLinearLayer) -> Callable[[LoraLayer, tuple[Any, ...], torch.Tensor], torch.Tensor]:
    """Return a hook that adds what experts say to the base's own answer."""

    def hook(layer: LoraLayer, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        x = inputs[0].contiguous()
        return output + routed(x, layer.lora_A, layer.lora_B, nn.Identity(), layer.scaling).to(output.dtype)

    return hook


def _too_few(n_slots: int, n_wanted: int) -> ConfigError:
    way_out = "Make the library with a larger max_loaded, or use fewer at once"
    return ConfigError(describe("experts", f"the model has {n_slots} slots to spare", f"{n_wanted} wanted", way_out))


def _layers(network: nn.Module) -> dict[str, LoraLayer]:
    return {name: module for name, module in network.named_modules() if isinstance(module, LoraLayer)}


def _active(network: PeftModel) -> list[str]:
    return list(network.base_model.active_adapters)


def _flags(network: nn.Module) -> dict[int, bool]:
    return {id(parameter): parameter.requires_grad for parameter in network.parameters()}


def _activate(network: PeftModel, names: list[str], flags: dict[int, bool]) -> None:
    """Make adapters active; what is trained stays what it was, and adapters that are new are not."""
    network.base_model.set_adapter(names)
    for parameter in network.parameters():
        parameter.requires_grad_(flags.get(id(parameter), False))
