"""Which numbers a model is loaded and computed in; what is trained is float32."""

import functools
from collections.abc import Iterable, Sequence

import torch
from torch import nn

DTYPES = ("float32", "bfloat16", "float16")
CHOICES = ("auto", "fast", *DTYPES)  # of model.dtype
HALF = (torch.bfloat16, torch.float16)
# how far two ways to the same logits may be apart by rounding, as a share of the largest (or of 1)
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def on_gpu(device: str) -> bool:
    """Tell whether a run with `device` (auto, cpu or cuda) uses a GPU."""
    return device != "cpu" and torch.cuda.is_available()


def fast_dtype(device: str) -> str:
    """Return bfloat16 where the GPU, or the CPU (by AMX or AVX512-BF16), has instructions for it, else float32."""
    if on_gpu(device):
        has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_it = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if has_it else "float32"


def train_in_float32(network: nn.Module, names: Sequence[str]) -> None:
    """Make parameters of a half-precision network float32; their modules then compute in it, and answer as before."""
    for place in dict.fromkeys(name.rpartition(".")[0] for name in names):
        module = network.get_submodule(place)
        if any(p.dtype in HALF for p in module.parameters(recurse=False)):
            back = functools.partial(_as, dtype=next(p.dtype for p in module.parameters(recurse=False)))
            module.float()
            module.register_forward_pre_hook(_in_float32)
            module.register_forward_hook(back)


def half_trained(parameters: Iterable[nn.Parameter]) -> str | None:
    """Return what the user should know where weights are trained in half precision, else None."""
    found = {p.dtype for p in parameters if p.dtype in HALF}
    if not found:
        return None
    dtype = str(min(found, key=str)).removeprefix("torch.")
    share = {"bfloat16": 256, "float16": 2048}[dtype]
    return (
        f"Weights are trained in {dtype}: a change of less than about 1/{share} of a weight is lost. "
        "Load the model in float32 and set learner.precision: bf16 to keep it."
    )


def _in_float32(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(x.float() for x in inputs)


def _as(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return output.to(dtype)
