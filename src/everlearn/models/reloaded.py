"""An exported folder, loaded back without everlearn: its logits beside those of the model that was measured."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from everlearn.errors import ModelError, describe
from everlearn.models.adapters import language_model, quiet_peft
from everlearn.models.dtypes import TOLERANCE
from everlearn.models.labelled import BESIDE_INPUTS
from everlearn.models.load import AUTO, Model, path_of
from everlearn.models.objectives import to_device
from everlearn.models.preferences import answered
from everlearn.models.quiet import quiet
from everlearn.seeds import seeded
from everlearn.types import Task

N_ROWS = 4


@dataclass(frozen=True)
class Exported:
    """Where a model was written to, and how far its logits are, at most, from those of the model that was measured."""

    path: Path
    n_rows: int
    difference: float

    def __str__(self) -> str:
        rows = "1 row" if self.n_rows == 1 else f"{self.n_rows} rows"
        return f"checked: logits of {rows} differ by at most {self.difference:.1e}"


class Sample:
    """Some evaluation rows (else training rows) of a task, and the logits that a language model gives them now.

    Args:
        blocks: of the head, those that are exported.
    """

    def __init__(self, model: Model, task: Task, blocks: list[int] | None = None):
        rows = task.evaluation if len(task.evaluation) else task.train
        if not len(rows):
            way_out = "Export with a task that has some"
            raise ModelError(describe(f"export: task {task.name!r}", "has no rows to check the logits of", 0, way_out))
        chosen = [rows[i] for i in range(min(N_ROWS, len(rows)))]
        if task.kind == "preference":  # any text will do
            chosen, task = [answered(row, "chosen") for row in chosen], replace(task, kind="prompt")
        features = model.objective.encode(chosen, task)[:N_ROWS]
        batch = model.objective.collate(features)
        self.n_rows = len(features)
        self.inputs = {name: tensor for name, tensor in batch.items() if name not in BESIDE_INPUTS}
        if blocks is not None:
            model.adapters.head.active = blocks
        with model.evaluating():
            self.logits = _logits(model.network, self.inputs)

    def check(self, folder: Path, model: Model, n_labels: int | None = None) -> float:
        """Load a folder as its README says and return the largest difference of its logits.

        A base in a GGUF file is loaded from the folder that it was converted into, which is faster.

        Args:
            model: that was exported; n_labels: of its head.

        Raises:
            ModelError: if it can't be loaded, or answers otherwise.
        """
        options = load_options(model, n_labels)
        try:
            with quiet(), quiet_peft(), seeded(0):  # what is loaded over is drawn first; a run goes on
                network, prompt = _load_back(folder, model, options)
                if "quantization_config" not in options:  # bitsandbytes puts its layers on the GPU itself
                    network.to(next(model.network.parameters()).device)
        except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            way_out = "Put the base model where it was loaded from, or export the whole model: --merged"
            raise ModelError(describe("export", f"can't be loaded back ({reason})", model.name, way_out)) from error
        difference = self._difference(_logits(network.eval(), self.inputs, prompt))
        limit = 1e-1 if "quantization_config" in options else TOLERANCE[options["dtype"]]
        if not difference <= limit * max(1.0, self.logits.abs().max().item()):
            what = "what was written answers otherwise than the model; it was not kept. The logits differ"
            way_out = "See that the base model's files are those it was loaded from; or export with or without --merged"
            raise ModelError(describe("export", what, f"{difference:.2g}", way_out))
        return difference

    def _difference(self, logits: torch.Tensor) -> float:
        if logits.ndim == 3:
            logits = logits[:, -self.logits.shape[1] :]  # those of a soft prompt's vectors come first
        if logits.shape != self.logits.shape:
            return float("inf")
        apart = (logits - self.logits).abs().nan_to_num(float("inf"))
        if apart.ndim == 3 and "attention_mask" in self.inputs:
            apart = apart[self.inputs["attention_mask"].bool()]
        return apart.max().item()


def load_options(model: Model, n_labels: int | None) -> dict[str, Any]:
    """Return what `from_pretrained` must be told so that the base, or the whole model, computes as the model does."""
    network = language_model(model.network)
    options: dict[str, Any] = {"dtype": network.dtype}
    if n_labels is not None:
        options["num_labels"] = n_labels
        options["ignore_mismatched_sizes"] = True  # the checkpoint may have a head of its own
    if network.is_remote_code():
        options["trust_remote_code"] = True
    if network.config.to_dict().get("quantization_config"):
        options["quantization_config"] = network.config.quantization_config
    return options


def resized_to(model: Model) -> int | None:
    """Return how many tokens the base is to have embeddings for, where it was given more than its checkpoint has."""
    n = language_model(model.network).config.get_text_config().vocab_size
    return n if max(model.adapters.new_tokens, default=-1) + 1 == n else None


def _load_back(folder: Path, model: Model, options: dict[str, Any]) -> tuple[nn.Module, torch.Tensor | None]:
    """Return the network in a folder; with it the vectors of a prompt that stands beside a LoRA."""
    auto = AUTO[model.kind]
    adapter = folder / "lora" if (folder / "lora").exists() else folder
    if not (adapter / "adapter_config.json").exists():
        of_head = ("num_labels", "ignore_mismatched_sizes")  # a whole model has its own
        return auto.from_pretrained(folder, **{k: v for k, v in options.items() if k not in of_head}), None
    config = PeftConfig.from_pretrained(str(adapter))
    base = auto.from_pretrained(path_of(config.base_model_name_or_path), revision=config.revision, **options)
    if resized_to(model) is not None:
        base.resize_token_embeddings(resized_to(model), mean_resizing=False)
    prompt = folder / "prompt" / "adapter_model.safetensors"
    vectors = load_file(prompt)["prompt_embeddings"] if prompt.exists() else None
    return PeftModel.from_pretrained(base, str(adapter)), vectors


@torch.no_grad()
def _logits(network: nn.Module, inputs: dict[str, torch.Tensor], prompt: torch.Tensor | None = None) -> torch.Tensor:
    inputs = dict(to_device(inputs, next(network.parameters()).device))
    if prompt is not None:
        embedded = network.get_input_embeddings()(inputs.pop("input_ids"))
        inputs["inputs_embeds"] = torch.cat([prompt.to(embedded).expand(len(embedded), -1, -1), embedded], dim=1)
        if "attention_mask" in inputs:
            inputs["attention_mask"] = nn.functional.pad(inputs["attention_mask"], (len(prompt), 0), value=1)
    return network(**inputs).logits.float().cpu()
