"""A training as a GPU would run it, on PyTorch's meta device, which has shapes and no numbers: where would it wait?"""

from __future__ import annotations

import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.accelerators import CPUAccelerator
from tiny import BARE, CNN, MLP, fit
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import cifar_lightning
from cifar_lightning.callbacks.records import TensorBoardRecords
from cifar_lightning.cli.training import CifarCLI

ROOT = Path(cifar_lightning.__file__).parent.parent
META = torch.device("meta")
STEPS = 20
"""Of an epoch, two of which are trained."""
ANSWERS: dict[Any, Callable[..., Any]] = {
    # All is finite in a step; 1 for numbers.
    torch.ops.aten._local_scalar_dense.default: lambda step, x: step >= 0 if x.dtype == torch.bool else 1,
    torch.ops.aten.allclose.default: lambda step, *pair: False,
    torch.ops.aten.bincount.default: lambda step, x, weights, size: torch.zeros(size, dtype=torch.int64, device=META),
}
"""What stands for the result of operators whose result, or whose size, is a number that the host has to know."""
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
VIEWS = {
    "view",
    "_unsafe_view",
    "expand",
    "slice",
    "t",
    "transpose",
    "permute",
    "detach",
    "alias",
    "unsqueeze",
    "select",
}
VIEWS |= {"_reshape_alias", "as_strided", "split", "unbind", "squeeze", "diagonal", "empty", "empty_like", "new_empty"}
"""Operators that start no kernel."""


class Watch(TorchDispatchMode):
    """Notes which part of the program reads a number of the device, copies to it, and how many kernels it starts.

    Args:
        most_kernels: How many a step may start.
    """

    def __init__(self, most_kernels: int) -> None:
        super().__init__()
        self.most_kernels = most_kernels
        self.step = -1
        self.waits: dict[str, list[int]] = defaultdict(list)
        self.copies: dict[str, list[int]] = defaultdict(list)
        self.kernels: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in ANSWERS and args[0].device == META:
            self.waits[caller()].append(self.step)
            return ANSWERS[func](self.step, *args)
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        if func in COPIES:
            source = tensors[-1].device
            target = tensors[0].device if len(tensors) > 1 else torch.device(kwargs.get("device") or source)
            if source != target:
                (self.waits if source == META else self.copies)[caller()].append(self.step)
            if source == META != target:
                return torch.zeros_like(tensors[-1], device=target, dtype=kwargs.get("dtype"))
        if func.overloadpacket.__name__ not in VIEWS and any(tensor.device == META for tensor in tensors):
            self.kernels[self.step] += 1
        return func(*args, **kwargs)


def caller() -> str:
    """Return the innermost function of this project that is running, or of Lightning where there is none."""
    frames = [f for f in traceback.extract_stack() if "/tests/" not in f.filename]
    for package in ("cifar_lightning/", "lightning/"):
        for frame in reversed(frames):
            if package in frame.filename:
                return f"{Path(frame.filename).stem}.{frame.name}"
    return "elsewhere"


class CountSteps(Callback):
    """Tells the watch which step is running; -1 outside of steps."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.watch.step = trainer.global_step

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.watch.step = -1


@pytest.fixture(
    scope="module",
    params=[
        (330, "sweeps/speed/fourteen_epochs.yaml", "sweeps/speed/eleven_epochs.yaml"),
        (680, "cnn.yaml"),  # trains a second network, which selects images
    ],
    ids=["one network", "two networks"],
)
def watched(request, tmp_path_factory) -> Iterator[Watch]:
    """What two epochs by a recipe of the CNN with the overlay for GPUs do."""
    most_kernels, *recipe = request.param
    configs = [f"--config={ROOT / 'configs' / name}" for name in (*recipe, "overlays/gpu.yaml")]
    here = ("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--model.compile=false")
    data = (
        f"--data.synthetic_train={STEPS * 20}",
        "--data.source=synthetic",
        "--data.images_per_step=20",
        "--data.batch_size=null",
    )
    short = ("--data.val_size=0", "--trainer.max_epochs=2", "--trainer.enable_checkpointing=false", *BARE)
    watch = Watch(most_kernels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CPUAccelerator, "setup_device", lambda self, device: None)
        patch.setattr(
            TensorBoardRecords, "on_train_start", lambda *args: None
        )  # draws the graph, before the first step
        patch.setattr(torch, "meta", SimpleNamespace(manual_seed=lambda seed: None), raising=False)
        cli = CifarCLI(["fit", *configs, *here, *data, *short, f"--save_dir={tmp_path_factory.mktemp('runs')}"])
        cli.trainer.strategy._root_device = META
        cli.trainer.callbacks.insert(0, CountSteps(watch))
        with watch:
            cli.run()
        yield watch


def test_nothing_waits_for_the_device_but_what_is_named(watched):
    steps, last = range(2 * STEPS), [STEPS - 1, 2 * STEPS - 1]
    found = {name: sorted({step for step in numbers if step >= 0}) for name, numbers in watched.waits.items()}
    every_tenth = sorted({*steps[::10], *last})
    named = {
        "loader.check_batch": [0, STEPS],  # the first batch of an epoch
        "finite.on_before_optimizer_step": every_tenth,
        "finite.not_finite_gradients": every_tenth,
        "steps.on_train_batch_end": list(steps[9::10]),  # a point of a curve
    }
    assert named.items() <= found.items()
    assert {name: numbers for name, numbers in found.items() if name not in named and set(numbers) - set(last)} == {}


def test_nothing_is_copied_to_the_device_but_at_the_end_of_an_epoch(watched):
    last = {-1, STEPS - 1, 2 * STEPS - 1}
    assert {name: numbers for name, numbers in watched.copies.items() if set(numbers) - last} == {}


def test_a_step_starts_a_constant_number_of_kernels(watched):
    usual = [watched.kernels[step] for step in range(2 * STEPS) if step % STEPS not in (0, STEPS - 1)]
    assert max(usual) <= watched.most_kernels
    assert max(usual) - min(usual) <= 10  # images that are made smaller, the check of the gradients


SELECTIVE = ("--model", "SelectiveClassifier", "--model.net=CNN", "--model.net.widths=[8]", "--model.proxy=CNN")


@pytest.fixture
def compiled(monkeypatch) -> list[str | int]:
    """The size of the images for which a network is compiled, in turn, and when the training starts."""
    seen: list[str | int] = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        seen.append(max(int(x.shape[-1]) for x in inputs if isinstance(x, torch.Tensor) and x.ndim == 4))
        return graph.forward

    def compile(net: nn.Module, **options: Any) -> None:
        net._compiled_call_impl = torch.compile(net._call_impl, backend=backend, **options)

    monkeypatch.setattr(TensorBoardRecords, "on_train_start", lambda *args: seen.append("the training starts"))
    monkeypatch.setattr(nn.Module, "compile", compile)
    torch._dynamo.reset()
    return seen


SIZES = ("--data.image_sizes=[16,24,32]", "--data.synthetic_train=699", "--trainer.max_epochs=3")
"""599 images, which make batches of 99 and of 100: whatever their number, a network is compiled once for it."""


@pytest.mark.parametrize("model", [CNN, SELECTIVE], ids=["one network", "two networks"])
def test_compiled_once_for_each_image_size_before_the_first_step(model, compiled):
    fit(*model, *SIZES, "--model.compile=true")
    assert compiled == [16, 24, 32] * (1 if model is CNN else 2) + ["the training starts"]


@pytest.mark.parametrize("model", [CNN, SELECTIVE], ids=["one network", "two networks"])
def test_compiled_as_it_is_frozen_before_the_first_step(model, compiled):
    """A part that trains no longer makes another program of the network, for the sizes from then on."""
    whitened = ("--model.net.whiten_px=2", "--model.net.whiten_bias=true", "--model.freeze_epochs={whiten: 1.5}")
    fit(*model, *whitened, *SIZES, "--model.compile=true")
    proxy = [] if model is CNN else [16, 24, 32]
    assert compiled == [16, 24, 24, 32, *proxy, "the training starts"]


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_compiling_before_changes_nothing(model):
    """A training without dropout, whose compiled form draws its own numbers, differs by the order of sums alone."""
    states = []
    for choice in ("true", "false"):
        run = fit(*model, "--model.net.dropout=0", f"--model.compile={choice}", "--trainer.precision=32-true")
        states.append(torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
