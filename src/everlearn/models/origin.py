"""Where a model comes from, and how to notice that it is no longer the same: hashes of its files, or a hub commit."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from transformers.utils.hub import cached_file

from everlearn.errors import ModelError, describe
from everlearn.models.gguf import gguf_of, source_files, source_sha256
from everlearn.models.load import POCKET, ModelConfig
from everlearn.models.plain import is_plain

COMMIT = "commit"  # key of a hub model's fingerprint; a folder's has a key per file
_FILES = (
    "config.json", "*.safetensors", "*.bin", "*.index.json", "tokenizer*", "*.model", "vocab*", "merges.txt",
    "special_tokens_map.json", "added_tokens.json", "chat_template*",
)  # fmt: skip


def origin_of(config: ModelConfig) -> dict[str, str]:
    """Return the fingerprint of a model: of its files, a hub id's commit, or nothing for a plain module.

    Raises:
        ModelError: if it can't be found.
    Cost: reads a local model once.
    """
    if is_plain(config.name):
        return {}
    place = place_of(config.name)
    return {COMMIT: commit_of(config)} if place is None else fingerprint_of(place)


def place_of(name: str) -> Path | None:
    """Return the folder of the pocket model or of a local one, the GGUF file that a name stands for, None for a hub id.

    Raises:
        ModelError: if a GGUF file, or the package that holds it, is missing.
    """
    if name == POCKET:
        return Path(str(resources.files("everlearn.models"))) / POCKET
    folder = Path(name).expanduser()
    return gguf_of(name) or (folder if folder.is_dir() else None)


def fingerprint_of(place: Path) -> dict[str, str]:
    """Return {file name: SHA-256} of the files that a model is loaded from: those of a folder, or a GGUF file.

    Raises:
        ModelError: if one can't be read.
    """
    if not place.is_dir():
        return {path.name: source_sha256(path) for path in source_files(place)}
    names = sorted({path.name for pattern in _FILES for path in place.glob(pattern) if path.is_file()})
    return {name: source_sha256(place / name) for name in names if not name.endswith(".py")}


def differing_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of the files that two fingerprints don't share."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def commit_of(config: ModelConfig) -> str:
    """Return the commit that a hub id's revision stands for now.

    Raises:
        ModelError: if it can't be found.
    """
    try:
        path = cached_file(config.name, "config.json", revision=config.revision or "main")
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        way_out = "Name a folder with a model, a hub id (needs a network; HF_TOKEN for a gated one), or pocket"
        raise ModelError(describe("model.name", f"can't be found ({reason})", config.name, way_out)) from error
    return Path(path).parent.name
