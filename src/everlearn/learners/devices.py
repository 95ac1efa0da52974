"""Starting Accelerate, and refusing to run when it gives less than was asked for."""

import ctypes
import os
import platform
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, ProjectConfiguration

from everlearn.errors import ConfigError, check_choice, check_number, describe

PRECISIONS = ("no", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda")
# glibc: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3), bytes; 32 MiB is the most that the latter takes
KEPT_WHEN_FREED = {-1: 256 * 2**20, -3: 32 * 2**20}
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # tracker -> module it needs


def start_accelerator(
    *,
    precision: str = "no",
    device: str = "auto",
    processes: int = 1,
    track: tuple[str, ...] = (),
    folder: Path | None = None,
) -> Accelerator:
    """Return an Accelerator that runs as asked.

    Accelerate itself falls back silently: to one process, to the CPU, to full precision.

    Raises:
        ConfigError: if process count, device or precision differ from what was asked, or a tracker isn't installed.
    """
    check_choice("learner.precision", precision, PRECISIONS)
    check_choice("device", device, DEVICES)
    check_number("processes", processes, low=1)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(describe("device", "no GPU is there", device, "Write device: cpu, or auto"))
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if precision == "fp16" and on_cpu:
        raise ConfigError(describe("learner.precision", "fp16 needs a GPU", precision, "Write bf16, or no"))
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != processes:
        way_out = f"Start it with: torchrun --nproc-per-node {processes} -m everlearn ...; or set processes: {started}"
        raise ConfigError(describe("processes", f"{started} process(es) were started", processes, way_out))
    _check_trackers(track)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    if on_cpu:
        _keep_freed_memory()
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=precision,
        log_with=list(track) or None,
        project_config=ProjectConfiguration(project_dir=str(folder or "."), logging_dir=str(folder or ".")),
    )
    _verify(accelerator, on_cpu=on_cpu, precision=precision, processes=processes)
    return accelerator


def start_trackers(accelerator: Accelerator, folder: Path, config: dict[str, Any], track: tuple[str, ...]) -> None:
    """Open the trackers of a run: TensorBoard below `folder`, MLflow in its mlflow.db, W&B by its own variables."""
    options: dict[str, dict[str, Any]] = {}
    if "mlflow" in track:  # Accelerate's tracker takes its address from the environment alone
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve()}/mlflow.db")
    if "wandb" in track:
        options["wandb"] = {"dir": str(folder)}
    accelerator.init_trackers("everlearn", config=config, init_kwargs=options)


def _keep_freed_memory() -> None:
    """Let the process keep memory that it frees, where its C library is glibc.

    By default each large tensor is given back to the system and its pages are asked for again: a seventh of the time
    of generating in batches on one core.
    """
    if platform.libc_ver()[0] == "glibc":
        for option, n_bytes in KEPT_WHEN_FREED.items():
            ctypes.CDLL(None).mallopt(option, n_bytes)


def _check_trackers(track: tuple[str, ...]) -> None:
    for name in track:
        check_choice("track", name, TRACKERS)
        try:
            __import__(TRACKERS[name])
        except ImportError as error:
            way_out = "Install it: pip install -c constraints.txt 'everlearn[track]'"
            raise ConfigError(describe("track", f"{name} is not installed", name, way_out)) from error


def _verify(accelerator: Accelerator, *, on_cpu: bool, precision: str, processes: int) -> None:
    wanted = (
        DistributedType.NO if processes == 1 else DistributedType.MULTI_CPU if on_cpu else DistributedType.MULTI_GPU
    )
    found = {
        "processes": (accelerator.num_processes, processes),
        "distributed type": (accelerator.distributed_type, wanted),
        "device": (accelerator.device.type, "cpu" if on_cpu else "cuda"),
        "precision": (accelerator.mixed_precision, precision),
    }
    for what, (is_there, asked) in found.items():
        if is_there != asked:
            raise ConfigError(describe(what, f"Accelerate gave {is_there}", asked, "Check the launch command"))
