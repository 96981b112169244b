"""Which number formats a device computes in by itself, and which it only imitates."""

from __future__ import annotations

import torch

from cifar_lightning.environment import cpu_model

__all__ = ["check_precision", "device_type", "has_bfloat16", "native_precision"]

CPU_BFLOAT16 = ("amx_bf16", "bf16", "sve_bf16")
"""Names, in torch.cpu.get_capabilities(), of the units that multiply bfloat16 on x86 and on ARM."""


def device_type(accelerator: str) -> str:
    """The kind of device that Lightning takes for `trainer.accelerator`: "cuda", "mps" or "cpu"."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def has_bfloat16(device: str) -> bool:
    """Whether a device ("cpu", "cuda" or "mps") has units for bfloat16: without them it takes longer than float32.

    Of AVX512_BF16, only AMD's units count: Intel's (measured on a Xeon whose virtual machine hides AMX) multiply
    bfloat16 at half the speed of float32.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # younger than the oldest torch that is supported
        capabilities = torch.cpu.get_capabilities()
        names = CPU_BFLOAT16 if "Intel" in cpu_model() else (*CPU_BFLOAT16, "avx512_bf16")
        return any(capabilities.get(name, False) for name in names)
    return False


def native_precision(device: str) -> str:
    """The fastest `trainer.precision` that trains as well as float32 on a device: "bf16-mixed" or "32-true"."""
    return "bf16-mixed" if has_bfloat16(device) else "32-true"


def check_precision(precision: str, device: str) -> None:
    """Refuses a precision that the device does not have, where Lightning would take another in its place.

    Args:
        precision: what was asked for, such as "16-mixed".
        device: "cpu", "cuda" or "mps".

    Raises:
        ValueError: naming the precisions to choose from.
    """
    if device == "cpu" and precision.startswith("16"):
        others = "32-true, bf16-mixed, bf16-true or 64-true"
    elif device == "cuda" and precision.startswith("bf16") and not has_bfloat16(device):
        others = "32-true, 16-mixed or 16-true"
    else:
        return
    raise ValueError(f"Expected `trainer.precision` to be one that a {device} device has ({others}), got {precision}.")
