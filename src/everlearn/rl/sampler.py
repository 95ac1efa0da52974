"""Responses drawn from a language model: each prompt is read once for all of its responses, a LoRA merged meanwhile."""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import DynamicCache

from everlearn.evaluation.generate import choose, draw_answers
from everlearn.models.adapters import is_peft, language_model, quiet_peft
from everlearn.models.dtypes import fast_dtype
from everlearn.models.export import unknown_layers
from everlearn.models.load import Model
from everlearn.models.positions import parameters_of
from everlearn.models.prompts import prompts_of
from everlearn.rl.decoding import attention_by_products, has_only_keys, repeat_lines
from everlearn.shards import full, is_sharded, whole

ROWS = 1024  # responses that are drawn at a time
DROP = 0.75  # finished responses are let go when so few of those in the batch still go on


class Sampler:
    """Draws responses from a model as it is when `refresh` was called last.

    A LoRA, and weights in another dtype, are laid into a plain copy of the model that is drawn from: one product a
    layer in place of three. The copy follows the weights at each `refresh`. A model that can't be copied so (soft
    prompts, layers of a strategy's own; sharded weights) is drawn from as it stands.

    Args:
        dtype: of the copy: float32, bfloat16, own (the model's), or auto: bfloat16 where the machine has instructions
            for it.

    Cost: a copy of the model's weights, where there is one; a refresh copies them.
    """

    def __init__(self, model: Model, device: torch.device, dtype: str = "auto"):
        self.model, self.device = model, device
        own = next(language_model(model.network).parameters()).dtype
        wanted = own if dtype == "own" else getattr(torch, fast_dtype(device.type) if dtype == "auto" else dtype)
        self._copy = None
        is_copied = is_peft(model.network) or wanted != own
        if is_copied and not is_sharded(model.network) and can_be_copied(model.network):
            self._copy = _plain_copy(model.network).to(wanted)
            self._sources = _sources(model.network)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the weights as they are now."""
        if self._copy is None:
            return
        for name, parameter in self._copy.named_parameters():
            source = self._sources.get(name)
            if isinstance(source, nn.Parameter):
                parameter.copy_(source)
            elif source is not None:
                parameter.copy_(_merged(source))

    @torch.no_grad()
    def draw(
        self,
        prompts: Sequence[list[int]],
        n: int,
        max_new_tokens: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        own: slice = slice(None),
    ) -> list[list[list[int]]]:
        """Return n responses to each prompt: token ids, with the one that ends it, where one came in time.

        Args:
            prompts: token ids, that leave room for the response in the context.
            generator: of the CPU; a response depends on its own numbers alone, but for rounding.
            temperature: 0 takes the likeliest token each time.
            own: which of the prompts are answered, as this process's; their responses are the same, whichever are.
        """
        uniforms = torch.rand((len(prompts), n, max_new_tokens), generator=generator)[own].flatten(0, 1)
        prompts = prompts[own]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # little padding
        at_once = max(1, ROWS // n)
        drawn: list[list[list[int]]] = [[] for _ in prompts]
        network = self.model.network if self._copy is None else self._copy
        evaluating = self.model.evaluating() if self._copy is None else nullcontext()
        with evaluating, whole(network), attention_by_products(network, self.device):
            for low in range(0, len(order), at_once):
                part = order[low : low + at_once]
                rows = torch.tensor([i * n + j for i in part for j in range(n)])
                responses = self._draw(network, [prompts[i] for i in part], n, uniforms[rows], temperature)
                for place, i in enumerate(part):
                    drawn[i] = responses[place * n : place * n + n]
        return drawn

    def _draw(
        self, network: nn.Module, prompts: list[list[int]], n: int, uniforms: torch.Tensor, temperature: float
    ) -> list[list[int]]:
        objective = self.model.objective
        stops = torch.tensor(objective.stop_ids, dtype=torch.long, device=self.device)
        longest = max(map(len, prompts))
        ids = torch.tensor([[objective.pad_id] * (longest - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        positions = (mask.cumsum(1) - 1).clamp_(min=0)
        seen = _forward(network, ids, mask, positions)
        cache = getattr(seen, "past_key_values", None)
        if not has_only_keys(cache):  # a model with a state of its own (Mamba, say)
            repeated = [prompt for prompt in prompts for _ in range(n)]
            return draw_answers(network, objective, repeated, uniforms, self.device, temperature)
        repeat_lines(network, cache, n)
        logits = seen.logits[:, -1].repeat_interleave(n, 0)
        mask, position = mask.repeat_interleave(n, 0), positions[:, -1:].repeat_interleave(n, 0)
        drawn = torch.full(uniforms.shape, objective.pad_id, device=self.device)
        uniforms, live = uniforms.to(self.device), torch.arange(len(drawn), device=self.device)
        lengths = torch.full((len(drawn),), drawn.shape[1], device=self.device)
        for place in range(drawn.shape[1]):
            token = choose(logits, uniforms[live, place], temperature)
            drawn[live, place] = token
            ended = torch.isin(token, stops) & (lengths[live] > place)
            lengths[live[ended]] = place + 1
            goes_on = lengths[live] > place + 1
            n_left = int(goes_on.sum())
            if not n_left or place + 1 == drawn.shape[1]:
                break
            if n_left < DROP * len(live):
                kept = goes_on.nonzero()[:, 0]
                live, token, mask, position = live[kept], token[kept], mask[kept], position[kept]
                cache.batch_select_indices(kept)
            mask, position = torch.cat([mask, mask.new_ones(len(live), 1)], 1), position + 1
            logits = _forward(network, token[:, None], mask, position, cache).logits[:, -1]
        return [row[:length] for row, length in zip(drawn.tolist(), lengths.tolist(), strict=True)]


def can_be_copied(network: nn.Module) -> bool:
    """Tell whether all that is added to the network are LoRAs of linear maps, which can be laid into its weights.

    Into weights of their own, that is: an output layer that shares the embeddings' would change these too.
    """
    if prompts_of(network) is not None or unknown_layers(network):
        return False
    tuned = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    n_owners = Counter(id(p) for _, p in network.named_parameters(remove_duplicate=False))
    return all(
        isinstance(layer, LoraLayer)
        and not layer.merged
        and not layer.lora_embedding_A
        and all(type(down) is nn.Linear for down in layer.lora_A.values())
        and not any(getattr(layer, "use_dora", {}).values())
        and layer.get_base_layer().weight.is_floating_point()
        and n_owners[id(layer.get_base_layer().weight)] == 1
        for layer in tuned
    )


def plain_weights(network: nn.Module, dtype: torch.dtype | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, weights) of the language model without adapters, on the CPU: LoRAs are laid into them.

    Of sharded weights all processes must ask.

    Args:
        network: one that `can_be_copied`.
        dtype: that they are given; None leaves each as it is.
    """
    base = language_model(network)
    layers = {
        f"{name}.base_layer.weight": layer for name, layer in base.named_modules() if isinstance(layer, LoraLayer)
    }
    for name, parameter in base.named_parameters():
        if ".lora_" not in name:
            weight = _merged(layers[name]) if name in layers else parameter
            yield name.replace(".base_layer.", "."), full(weight.detach()).to("cpu", dtype)


def _forward(
    network: nn.Module,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    cache: DynamicCache | None = None,
):
    options = {"past_key_values": cache} if cache is not None else {}
    taken = parameters_of(type(language_model(network)))
    if "position_ids" in taken:
        options["position_ids"] = positions
    if "logits_to_keep" in taken:
        options["logits_to_keep"] = 1
    return network(input_ids=ids, attention_mask=mask, use_cache=True, **options)


def _plain_copy(network: nn.Module) -> nn.Module:
    """Return the language model without adapters, its weights its own, in evaluation mode."""
    with quiet_peft():
        plain = copy.deepcopy(network)
        plain = plain.unload() if is_peft(plain) else plain
    return plain.requires_grad_(False).eval()


def _sources(network: nn.Module) -> dict[str, nn.Parameter | LoraLayer]:
    """Return where each weight of the plain copy comes from: a LoRA's layer, or a weight that is trained itself."""
    base = language_model(network)
    layers = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    found: dict[str, nn.Parameter | LoraLayer] = {f"{name}.weight": layer for name, layer in layers.items()}
    for name, parameter in base.named_parameters():
        if parameter.requires_grad and ".lora_" not in name:
            found[name.replace(".base_layer.", ".")] = parameter
    return found


def _merged(layer: LoraLayer) -> torch.Tensor:
    """Return a layer's matrix with its active LoRAs."""
    weight = layer.get_base_layer().weight
    if layer.disable_adapters:
        return weight
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    return sum((layer.get_delta_weight(name).to(weight.dtype) for name in active), weight)
