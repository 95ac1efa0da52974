"""Out of everlearn: a plain peft adapter, or a whole model, that transformers loads to the same logits."""

import copy
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from everlearn.errors import ConfigError, ModelError, describe, nearest
from everlearn.models.adapters import Adapters, is_peft, quiet_peft
from everlearn.models.card import card_of
from everlearn.models.causal import CausalObjective
from everlearn.models.heads import GrowingHead
from everlearn.models.labelled import TagObjective
from everlearn.models.load import Model
from everlearn.models.lora import fold_vectors, lora_layers, stack, stacked_config
from everlearn.models.prompts import prompts_of
from everlearn.models.quiet import quiet
from everlearn.models.reloaded import Exported, Sample
from everlearn.models.soft import SoftPrompt, soft_prompt_of
from everlearn.state import writing
from everlearn.types import Task

_PREFIX = "base_model.model."  # of the names of a model that peft wraps


def export_model(
    model: Model, folder: Path, checked_on: Task, *, merged: bool = False, task: str | None = None
) -> Exported:
    """Write a model and its tokenizer into a new folder, for use without everlearn. The model is used up by that.

    LoRA becomes a peft adapter (`PeftModel.from_pretrained(base, folder)`), or with `merged` a whole model
    (`AutoModelFor….from_pretrained(folder)`); full fine-tuning always a whole model. Several LoRAs become one of their
    summed rank. A classifier gets a linear head: that of `task`, or the shared one, with its label names. Embeddings
    that are tied to the output layer become two matrices where a LoRA on one of them is merged.

    What was written is loaded back as its README says, and its logits are compared with the model's.

    Args:
        folder: new or empty; it appears whole, and only if the logits are the model's.
        checked_on: the task of whose evaluation rows a few are compared.
        task: which head; needed where there are several.

    Raises:
        ConfigError: if the folder is not empty, or it isn't clear which head is meant.
        ModelError: if it can't be exported so, with the way that works. StateError: if it can't be written.

    Cost: loads the model once more.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(describe("export", "the folder is not empty", str(folder), "Name a new folder"))
    if model.tokenizer is None:
        raise ModelError(describe("export", "only language models can be exported", model.name, "Save its state_dict"))
    if prompts_of(model.network) is not None:
        way_out = "Keep the run or the model home, which uses them; or learn with LoRA"
        raise ModelError(describe("export", "soft prompts are no part of a plain model", model.name, way_out))
    labels = None if isinstance(model.objective, CausalObjective) else _labels(model.adapters, task)
    if labels is None and task is not None:
        raise ConfigError(describe("export: task", "a language model has no heads", task, "Leave the task out"))
    as_adapter = is_peft(model.network) and not merged
    sample = Sample(model, checked_on, None if labels is None else _blocks(model.adapters, task))
    if is_peft(model.network):
        fold_vectors(model.network)
    _check_layers(model.network)
    with _written_aside(folder) as aside:
        card = card_of(model, labels, as_adapter=as_adapter)
        if as_adapter:
            _save_adapter(model, aside, labels, task)
        else:
            _whole(model, labels, task).save_pretrained(aside)
        model.tokenizer.save_pretrained(aside)
        (aside / "README.md").write_text(card, encoding="utf-8")
        difference = sample.check(aside, model, None if labels is None else len(labels))
    return Exported(folder, sample.n_rows, difference)


def save_trained(model: Model, folder: Path, checked_on: Task | None = None) -> None:
    """Write what is trained of a language model as it is now; the model stays as it is and in use.

    A LoRA, prompt or prefix becomes a peft adapter (`PeftModel.from_pretrained(base, folder)`), a LoRA with a prompt
    two of them, in `folder/lora` and `folder/prompt`; full fine-tuning a whole model with its tokenizer. The folder
    appears whole.

    Args:
        checked_on: load it back and compare its logits with the model's, on a few of this task's evaluation rows.

    Raises:
        ModelError: if a strategy's layers stand in the network, or what was written answers otherwise.
        StateError: if it can't be written.
    """
    _check_layers(model.network)
    prompt = soft_prompt_of(model.network)
    with _written_aside(folder) as aside:
        if prompt is not None:
            prompt.save(aside / "prompt" if is_peft(model.network) else aside)
        if is_peft(model.network) and not model.network.active_peft_config.is_prompt_learning:
            lora = aside / "lora" if prompt is not None else aside
            lora.mkdir(exist_ok=True)
            _save_adapter(model, lora, None, None)
        elif is_peft(model.network) or prompt is None:
            model.network.save_pretrained(aside)
            if not is_peft(model.network):
                model.tokenizer.save_pretrained(aside)
        if checked_on is not None:
            Sample(model, checked_on).check(aside, model)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _written_aside(folder: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes the place of `folder` if nothing is raised; without bars and reports."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with writing(folder), quiet(), quiet_peft():
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            yield aside
            os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def unknown_layers(network: nn.Module) -> list[str]:
    """Return the names of the layers that a strategy put into the network and that no other library knows."""
    package = f"{__name__.partition('.')[0]}."
    return [
        name
        for name, module in network.named_modules()
        if type(module).__module__.startswith(package) and not isinstance(module, GrowingHead | SoftPrompt)
    ]


def _check_layers(network: nn.Module) -> None:
    """Raise ModelError if a strategy put layers into the network that no other library knows."""
    own = unknown_layers(network)
    if own:
        way_out = "Keep the run or the model home, which uses them; or learn with another strategy"
        raise ModelError(describe("export", "the network has layers that only everlearn knows", own, way_out))


def _labels(adapters: Adapters, task: str | None) -> list[str]:
    """Return the label names of the head that is exported."""
    if adapters.head_mode == "shared":
        if task is not None:
            way_out = "Leave the task out: all tasks share one head"
            raise ConfigError(describe("export: task", "there is no head of its own", task, way_out))
        return list(adapters.columns)
    known = list(adapters.task_blocks)
    if task is None and len(known) == 1:
        task = known[0]
    if task is None:
        way_out = f"Name one with --task: {', '.join(known)}"
        raise ConfigError(describe("export: task", "each task has a head of its own", known, way_out))
    if task not in adapters.task_blocks:
        way_out = f"{nearest(task, known)}Tasks with a head: {', '.join(known)}"
        raise ConfigError(describe("export: task", "has no head", task, way_out))
    return list(adapters.task_labels[task])


def _blocks(adapters: Adapters, task: str | None) -> list[int]:
    """Return the numbers of the head's blocks that are exported."""
    if adapters.head_mode == "shared":
        return list(range(len(adapters.head.blocks)))
    return [adapters.task_blocks[task if task is not None else next(iter(adapters.task_blocks))]]


def _linear(adapters: Adapters, task: str | None) -> nn.Linear:
    """Return one linear layer that computes what the exported head does."""
    blocks = [adapters.head.blocks[i] for i in _blocks(adapters, task)]
    weight = torch.cat([block.weight for block in blocks])
    has_bias = blocks[0].bias is not None
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if has_bias:
            linear.bias.copy_(torch.cat([block.bias for block in blocks]))
    return linear


def _whole(model: Model, labels: list[str] | None, task: str | None) -> nn.Module:
    """Return a plain transformers model: adapters merged, a linear layer for the head."""
    network = model.network
    if is_peft(network):
        _untie(network)
        network = network.merge_and_unload()
    if labels is None:
        return network
    network.set_submodule(_name_of(network, model.adapters.head), _linear(model.adapters, task))
    network.num_labels = len(labels)
    network.config.id2label = dict(enumerate(labels))
    network.config.label2id = {label: i for i, label in enumerate(labels)}
    return network


def _untie(network: PeftModel) -> None:
    """Give each layer with an adapter a matrix of its own, where it shares one: merging would change the other too."""
    base, owners = network.get_base_model(), Counter()
    for module in base.modules():
        owners.update(id(parameter) for parameter in module.parameters(recurse=False))
    for layer in [module for module in base.modules() if isinstance(module, BaseTunerLayer)]:
        inner = layer.get_base_layer()
        if owners[id(inner.weight)] < 2:
            continue
        owners[id(inner.weight)] -= 1
        inner.weight = nn.Parameter(inner.weight.detach().clone(), requires_grad=False)
        for config in {id(c): c for c in (base.config, base.config.get_text_config())}.values():
            config.tie_word_embeddings = False


def _save_adapter(model: Model, folder: Path, labels: list[str] | None, task: str | None) -> None:
    """Write adapter_config.json and adapter_model.safetensors; a head, and weights that the base lacks, go along."""
    network: PeftModel = model.network
    config = copy.deepcopy(network.active_peft_config)
    if len(network.active_adapters) > 1:
        stacked = {layer_name: stack(layer) for layer_name, layer in lora_layers(network).items()}
        config = stacked_config(config, next(iter(stacked.values()))[0].shape[0])
        tensors = {f"{layer_name}.lora_A.weight": down for layer_name, (down, _) in stacked.items()}
        tensors |= {f"{layer_name}.lora_B.weight": up for layer_name, (_, up) in stacked.items()}
    else:
        tensors = get_peft_model_state_dict(network, adapter_name=network.active_adapter, save_embedding_layers=False)
    config.inference_mode = True
    config.revision = vars(network.get_base_model().config).get("_commit_hash")  # of a hub model
    if labels is not None:
        config.task_type = "TOKEN_CLS" if isinstance(model.objective, TagObjective) else "SEQ_CLS"
        config.modules_to_save, extra = _beside_lora(model, task)
        tensors = {**tensors, **extra}
    config.save_pretrained(folder)
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _beside_lora(model: Model, task: str | None) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Return the modules that a classifier's adapter holds whole (its head, those the base lacks) and their tensors.

    Raises:
        ModelError: if one of them has a LoRA inside: peft loads only one of the two.
    """
    base, adapters = model.network.get_base_model(), model.adapters
    head_name = _name_of(base, adapters.head)
    owners = {name.rpartition(".")[0].removesuffix(".base_layer") for name in adapters.fresh}
    owners = {owner for owner in owners if not isinstance(base.get_submodule(owner), GrowingHead)}
    layered = [name for name, module in base.named_modules() if isinstance(module, LoraLayer)]
    whole = {head_name.partition(".")[0], *owners}
    inside = [name for name in layered if any(name == owner or name.startswith(f"{owner}.") for owner in whole)]
    if inside:
        way_out = "Export the whole model instead: --merged"
        raise ModelError(describe("export", "LoRA stands inside layers that the base model lacks", inside, way_out))
    base.set_submodule(head_name, _linear(adapters, task))
    found: dict[str, Any] = {}
    for owner in whole:
        values = base.get_submodule(owner).state_dict()
        found |= {f"{_PREFIX}{owner}.{name}": tensor for name, tensor in values.items()}
    return sorted(whole), found


def _name_of(network: nn.Module, module: nn.Module) -> str:
    return next(name for name, found in network.named_modules() if found is module)
