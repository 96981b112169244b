"""Each private name and each text of a library still is what this package takes it for."""

from __future__ import annotations

import inspect
import re
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import jsonargparse
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.tensorboard import SummaryWriter

from cifar_lightning import private

ROOT = Path(private.__file__).parent


def source(*modules: str) -> str:
    """Return the source of modules with the literals of a text joined."""
    text = "".join(Path(str(find_spec(name).origin)).read_text(encoding="utf-8") for name in modules)
    text = re.sub(r"(?m)^\s*#.*$", "", text)
    return re.sub(r"""["']\s*\n?\s*[frb]*["']""", "", text)


def test_no_other_module_uses_private_names():
    """Of other objects than `self` and `cls`; those of this package as well."""
    public = {"._asdict", "._core", "._fields"}  # of named tuples, and a module in old pickles of NumPy
    public |= {module.removeprefix("torch") for module in private.COMPILERS}
    for path in ROOT.rglob("*.py"):
        found = re.findall(r"(?<!self)(?<!cls)(?<!\(\))\._[a-z]\w*", path.read_text(encoding="utf-8"))
        assert path.name == "private.py" or {*found} <= public, path


def test_options_of_parsers():
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--number", type=int | None)
    action = next(action for action in private.actions_of(parser) if action.dest == "number")
    assert private.typehint_of(action) == int | None
    assert private.typehint_of(None) is None


def test_norms_of_several_tensors():
    tensors = [torch.tensor([3.0, -4.0]), torch.tensor([[1.0]])]
    assert [float(norm) for norm in private.foreach_norm(tensors)] == [5, 1]
    assert [float(norm) for norm in private.foreach_norm(tensors, float("inf"))] == [4, 1]


def test_compiled_once_for_any_batch_size():
    shapes = []

    def backend(graph, inputs):
        shapes.append([x.shape for x in inputs if isinstance(x, torch.Tensor)])
        return graph.forward

    torch._dynamo.reset()
    double = torch.compile(lambda x: x * 2, backend=backend, dynamic=False)
    for shape in ((4, 3), (5, 3), (5, 6)):
        images = torch.ones(shape)
        private.any_batch_size(images)
        assert torch.equal(double(images), images + images)
    assert len(shapes) == 2  # the other sizes are fixed


def test_a_summary_is_written_to_the_one_event_file():
    from torch.utils.tensorboard.summary import hparams

    with SummaryWriter("events") as writer:
        private.add_summary(writer, hparams({"lr": 0.1}, {})[1])
    (file,) = Path("events").iterdir()
    assert b"_hparams_/session_start_info" in file.read_bytes()


def test_tensorboard_writes_in_a_thread_of_this_name():
    with SummaryWriter("events"):
        assert private.TENSORBOARD_THREAD in {type(thread).__name__ for thread in threading.enumerate()}


def test_a_strategy_starts_commands():
    strategy = DDPStrategy(start_method="spawn")
    private.start_processes_as_commands(strategy)
    assert strategy._start_method == DDPStrategy()._start_method == "popen"


def test_torch_looks_for_a_store_that_is_there():
    assert f'"{private.AGENT_STORE}"' in source("torch.distributed.rendezvous") + source(
        "torch.distributed.elastic.agent.server.local_elastic_agent", "torch.distributed.elastic.agent.server.api"
    )


@pytest.mark.parametrize("name", private.COMPILERS)
def test_the_compiler_has_these_modules(name):
    assert name == "triton" or find_spec(name) is not None  # Triton is for GPUs alone


def test_jsonargparse_keeps_all_errors_of_a_union():
    module = import_module("jsonargparse._typehints")
    functions = [function for _, function in inspect.getmembers(module, inspect.isfunction)]
    assert any(private.TRIED_TYPES in function.__code__.co_varnames for function in functions)


def test_what_jsonargparse_cannot_write_has_this_text():
    assert private.UNWRITTEN in source("jsonargparse._typehints", "jsonargparse._util")


def test_the_cpu_runs_out_of_memory_with_this_text():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert private.CPU_OUT_OF_MEMORY in str(caught.value).lower()


WRITERS = (
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.callbacks.gradient_accumulation_scheduler",
    "lightning.pytorch.callbacks.model_checkpoint",
    "lightning.pytorch.callbacks.stochastic_weight_avg",
    "lightning.pytorch.callbacks.timer",
    "lightning.pytorch.callbacks.weight_averaging",
    "lightning.pytorch.loops.fit_loop",
    "lightning.pytorch.loops.training_epoch_loop",
    "lightning.pytorch.trainer.configuration_validator",
    "lightning.pytorch.trainer.connectors.accelerator_connector",
    "lightning.pytorch.trainer.connectors.callback_connector",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.pytorch.trainer.connectors.data_connector",
    "lightning.pytorch.trainer.setup",
    "lightning.pytorch.trainer.trainer",
    "lightning.pytorch.utilities.data",
    "lightning.pytorch.utilities.model_summary.model_summary",
    "matplotlib._text_helpers",
    "PIL.Image",
    "torch._tensor",
    "torch.jit._trace",
    "torch.utils._pytree",
)
"""Modules that write the texts."""
FILLED_IN = {"`list`": "`{type(dataloader).__name__}`", "available:\\ False": "available: {gpu_available}"}
"""Parts of the texts that are filled in when they are written."""
OF_NEWER_TORCH = (".*LeafSpec.* is deprecated.*", ".*torch.jit.trace.* is deprecated.*")


@pytest.mark.parametrize("text", [*private.WARNINGS, *map(re.escape, private.NOISE)])
def test_libraries_write_these_texts(text):
    pattern = text.removeprefix(".*").removesuffix(".*").replace(".*", ".{0,200}?")
    for part, written in FILLED_IN.items():
        pattern = pattern.replace(part, re.escape(written))
    found = re.search(pattern, source(*WRITERS))
    if not found and text in OF_NEWER_TORCH and torch.__version__ < "2.15":
        pytest.skip("a newer torch writes it")
    assert found
