"""The profiles of a library's experts: prototypes, one row for each task that an expert learned. Rows never change."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from everlearn.errors import ConfigError, StateError, describe
from everlearn.state import write_file


@dataclass(frozen=True)
class Prototypes:
    """Prototypes of several experts: vectors [n, dimension], and whose and of which task each is."""

    vectors: torch.Tensor
    experts: list[int]
    tasks: list[str]


class Profiles:
    """Rows of float32 [n, dimension] on the disk, each under a number of its own.

    They are in memory too, 4 bytes a number: 2 MB for 1,000 rows of 512.
    """

    def __init__(self, path: Path):
        self.path = path
        self._rows: dict[int, torch.Tensor] | None = None  # not read yet

    @property
    def rows(self) -> dict[int, torch.Tensor]:
        """{number: vector [dimension]}.

        Raises:
            StateError: if the file is damaged.
        """
        if self._rows is None:
            self._rows = _read(self.path) if self.path.exists() else {}
        return self._rows

    def forget(self) -> None:
        """Read the file again when it is next asked for."""
        self._rows = None

    def write(self, rows: Mapping[int, torch.Tensor]) -> None:
        """Replace all rows, at one stroke.

        Raises:
            StateError: if the file can't be written.
        """
        kept = dict(sorted(rows.items()))
        tensors = {"numbers": torch.tensor(list(kept), dtype=torch.int64)}
        tensors["vectors"] = torch.stack(list(kept.values())) if kept else torch.zeros(0, 0)
        write_file(self.path, save(tensors, metadata={"sha256": _sha256(tensors)}))
        self._rows = kept


def checked(vector: torch.Tensor, dimension: int | None, where: str) -> torch.Tensor:
    """Return a copy of a prototype in float32 on the CPU.

    Raises:
        ConfigError: if it has another dimension than the library's profiles, or can't be compared with anything.
    """
    vector = torch.as_tensor(vector).detach().to("cpu", torch.float32, copy=True)
    if vector.ndim != 1 or (dimension is not None and len(vector) != dimension):
        wanted = "one dimension" if dimension is None else f"{dimension} numbers, as all profiles of this library"
        way_out = "Make it with the signals and sizes that the library was begun with"
        raise ConfigError(describe(where, f"a prototype needs {wanted}", tuple(vector.shape), way_out))
    if not vector.isfinite().all() or not vector.any():
        what = "a prototype can't be compared: it is zero, or not finite"
        raise ConfigError(describe(where, what, vector[:4].tolist(), "See to the rows that it is made from"))
    return vector


def _read(path: Path) -> dict[int, torch.Tensor]:
    way_out = "Restore it from a copy of the folder; the experts' weights are not touched"
    try:
        data = path.read_bytes()
        tensors = load(data)
        with safe_open(path, "pt") as file:
            wanted = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise StateError(describe(str(path), f"can't be read ({error})", path.name, way_out)) from error
    found = _sha256(tensors)
    if found != wanted:
        raise StateError(describe(str(path), "is damaged (its checksum differs)", found[:12], way_out))
    return dict(zip(tensors["numbers"].tolist(), tensors["vectors"].clone(), strict=True))


def _sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in ("numbers", "vectors"):
        digest.update(str(tuple(tensors[name].shape)).encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
