"""What a device computes in by itself, and what `precision: null` makes of it."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
import torch
import yaml
from tiny import CNN, fit

from cifar_lightning import precision
from cifar_lightning.precision import check_precision, device_type, has_bfloat16, native_precision


def pretend(monkeypatch, model: str = "AMD EPYC", **capabilities: bool) -> None:
    monkeypatch.setattr(precision, "cpu_model", lambda: model)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(capabilities), raising=False)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": True, "model": "Intel(R) Xeon(R) Processor"}, False),
        ({"avx512_bf16": True, "amx_bf16": True, "model": "Intel(R) Xeon(R) Processor"}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({}, False),
    ],
)
def test_bfloat16_of_a_cpu(monkeypatch, capabilities, expected):
    pretend(monkeypatch, **capabilities)
    assert has_bfloat16("cpu") is expected
    assert native_precision("cpu") == ("bf16-mixed" if expected else "32-true")


def test_an_old_torch_knows_no_capabilities(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert native_precision("cpu") == "32-true"


@pytest.mark.parametrize("bf16", [True, False])
def test_bfloat16_of_a_gpu(monkeypatch, bf16):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 or including_emulation)
    assert has_bfloat16("cuda") is bf16
    if bf16:
        check_precision("bf16-mixed", "cuda")
    else:
        with pytest.raises(ValueError, match="16-mixed or 16-true"):
            check_precision("bf16-mixed", "cuda")
    assert not has_bfloat16("mps")


@pytest.mark.parametrize(
    ("accelerator", "cuda", "mps", "expected"),
    [
        ("auto", True, False, "cuda"),
        ("gpu", True, False, "cuda"),
        ("auto", False, True, "mps"),
        ("auto", False, False, "cpu"),
        ("cpu", True, True, "cpu"),
    ],
)
def test_the_device_that_lightning_takes(monkeypatch, accelerator, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert device_type(accelerator) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="pretends about the CPU")
@pytest.mark.parametrize("bf16", [True, False])
def test_null_is_settled_once_for_the_run(monkeypatch, bf16):
    pretend(monkeypatch, avx512_bf16=bf16)
    run = fit(*CNN, "--trainer.precision=null", "--trainer.max_epochs=1")
    expected = "bf16-mixed" if bf16 else "32-true"
    assert json.loads((run / "result.json").read_text())["fit"]["precision"] == expected
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == expected


def test_a_plugin_may_bring_the_precision():
    plugin = ["--trainer.plugins", "lightning.pytorch.plugins.MixedPrecision"]
    plugin += ["--trainer.plugins.precision=bf16-mixed", "--trainer.plugins.device=cpu"]
    run = fit(*CNN, "--trainer.precision=null", *plugin, "--trainer.accelerator=cpu", "--trainer.max_epochs=1")
    assert json.loads((run / "result.json").read_text())["fit"]["precision"] == "bf16-mixed"
