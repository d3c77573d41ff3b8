"""Device, number format and threads: what `auto` becomes, by rule."""

from __future__ import annotations

import time

import torch

from triggerctl.config.models import FinetuneConfig
from triggerctl.cores import available_cores
from triggerctl.errors import InputError
from triggerctl.model.products import product

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(asked: str) -> torch.device:
    """`auto` is the first GPU, else the CPU.

    Raises InputError for a device that isn't there or a name that isn't one."""
    if asked == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(
            f"{asked!r} is not a device", where="--device", mend="one of auto, cpu, cuda, cuda:0, cuda:1, mps"
        )
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise InputError(
                f"device {asked!r} is not there",
                where="--device",
                why=f"PyTorch {torch.__version__} sees {count} CUDA devices",
                mend="use --device cpu, or install a CUDA build of PyTorch on a machine with a GPU",
            )
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps' is not there", where="--device", mend="use --device cpu")
    return device


def resolve_dtype(options: FinetuneConfig, device: torch.device) -> torch.dtype:
    """The format of the model's weights and of computing, unless asked for: bfloat16 under LoRA on a GPU that
    has it, else float32. `load_in_16bit` asks for half precision whatever the device.

    Where every weight is trained, an update is often less than half a unit in the last place of 16 bits, and
    would be lost; a GPU that only emulates bfloat16 is slower with it, and float16 would want its losses
    scaled."""
    if options.dtype != "auto":
        return _DTYPES[options.dtype]
    is_gpu = device.type == "cuda"
    has_bfloat16 = not is_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    if options.load_in_16bit or options.load_in_8bit or options.load_in_4bit:
        return torch.bfloat16 if has_bfloat16 else torch.float16
    return torch.bfloat16 if is_gpu and has_bfloat16 and options.is_peft else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """As configurations and results call it: "float32"."""
    return str(dtype).removeprefix("torch.")


def device_count(device: torch.device) -> int:
    """How many devices of this kind runs can be spread over."""
    return torch.cuda.device_count() if device.type == "cuda" else 1


def default_threads() -> int:
    """As many threads as this process may use cores."""
    return available_cores()


def matmul_rate(
    device: torch.device,
    dtype: torch.dtype,
    *,
    rows: int | None = None,
    inner: int | None = None,
    columns: int | None = None,
    seconds: float = 0.3,
) -> float:
    """Floating-point operations a second in products of (rows, inner) by (inner, columns), large squares by
    default, measured now on this device, by the library that models multiply with: the floor that training
    and evaluation are held against.

    The best of many products counts, each short enough to fit between two turns of another process. Draws no
    random number."""
    size = 1024 if device.type == "cpu" else 8192
    rows, inner, columns = rows or size, inner or size, columns or size
    left = _filled(rows, inner, device, dtype)
    right = _filled(columns, inner, device, dtype)
    best = 0.0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        found = product(left, right)
        if device.type != "cpu":
            float(found[0, 0])
        best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start))
    return best


def _filled(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A matrix of many different small numbers: some devices multiply equal ones faster."""
    numbers = torch.arange(rows * columns, device=device, dtype=torch.float32)
    return (numbers * 0.6180339887).remainder(1.0).sub(0.5).to(dtype).reshape(rows, columns)
