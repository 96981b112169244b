"""What this package uses of its libraries without a promise of theirs: private names, and texts of messages.

Everything that a new release may change without notice stands here, with the reason why no public name does. Each entry
has a test in tests/test_private.py that fails when a release changes it.
"""

from __future__ import annotations

import argparse
from typing import Any

__all__ = [
    "AGENT_STORE",
    "COMPILERS",
    "CPU_OUT_OF_MEMORY",
    "GLOO_ERROR",
    "NOISE",
    "TENSORBOARD_THREAD",
    "TRIED_TYPES",
    "UNWRITTEN",
    "WARNINGS",
    "actions_of",
    "add_summary",
    "any_batch_size",
    "foreach_norm",
    "start_processes_as_commands",
    "typehint_of",
]

# ---- names -----------------------------------------------------------------------------------------------------------


def actions_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options and arguments of a parser, which argparse only prints."""
    return parser._actions


def typehint_of(action: argparse.Action | None) -> Any:
    """Return the type of an option of jsonargparse; None for a group of options, and where there is none.

    `Action.type` is a function that converts text; the type as it was annotated has no public name.
    """
    return getattr(action, "_typehint", None)


def foreach_norm(tensors: list[Any], order: float = 2.0) -> list[Any]:
    """Return the norm of each tensor by one kernel for all.

    `torch.nn.utils.get_total_norm` returns one norm of all tensors, and `torch.linalg.vector_norm` takes a call and a
    kernel for each.
    """
    import torch

    return list(torch._foreach_norm(tensors, order))


def any_batch_size(images: Any) -> None:
    """Make torch.compile compile once for all numbers of images. `torch.compile(dynamic=True)` leaves no size fixed."""
    from torch._dynamo import maybe_mark_dynamic

    maybe_mark_dynamic(images, 0)


def add_summary(writer: Any, summary: Any) -> None:
    """Write a summary of TensorBoard as it is. `SummaryWriter.add_hparams` opens another event file for it."""
    writer._get_file_writer().add_summary(summary)


def start_processes_as_commands(strategy: Any) -> None:
    """Make a `DDPStrategy` start its processes as `ddp` does; its constructor reads this from its name alone."""
    strategy._start_method = "popen"


AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
"""Variable that makes torch.distributed connect to a store that is there. `init_process_group(store=...)` is called by
Lightning, which passes no store."""
TENSORBOARD_THREAD = "_AsyncWriterThread"
"""Class of TensorBoard's thread that writes events. Its errors are raised again by the next write."""

COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")
"""Modules whose exceptions come from torch.compile; they share no base class."""
TRIED_TYPES = "exceptions"
"""Local variable of jsonargparse with the errors of all types that it tried; it keeps the first alone as the cause."""

# ---- texts -----------------------------------------------------------------------------------------------------------

CPU_OUT_OF_MEMORY = "defaultcpuallocator"
"""In the message of a RuntimeError when the CPU has no memory left; `torch.OutOfMemoryError` is for GPUs."""
GLOO_ERROR = "/gloo/"
"""In the message of a RuntimeError when gloo lost another process; `torch.distributed.DistError` covers the others."""
UNWRITTEN = "Unable to serialize instance"
"""How jsonargparse starts the text in place of a value that it cannot write."""
WARNINGS = (
    ".*does not have many workers.*",  # there are no worker processes: batches are cut from memory
    ".*exists and is not empty.*",  # checkpoints of a continued run belong into its folder
    ".*number of training batches .* is smaller than the logging interval.*",  # epochs are logged as well
    ".*saving a checkpoint outside the 'fit' stage.*",
    ".*loading a checkpoint outside the 'fit' stage.*",  # an evaluation takes the averaged weights, as it should
    ".*GPU available but not used.*",
    ".*Total length of `list` across ranks is zero.*",  # no validation was asked for
    ".*The dirpath has changed.*best_model_score.*",  # a run that continues another has its own best
    ".*is not supported by the model summary.*",
    ".*your dataloader is not resumable.*",  # the data module keeps its place
    ".*could not find the monitored key.*",  # a training that ends before its first validation
    ".*AMP with fp16 is not supported on CPU.*",  # an error of this package says so
    ".*Glyph .* missing from font.*",  # a run may be named in any script; the picture is as good without
    ".*LeafSpec.* is deprecated.*",  # Lightning 2.6.6 on torch 2.15
    ".*could be decompression bomb.*",  # pictures above the limit of this package are refused with a message
    ".*SWA is currently only supported every epoch.*",  # its schedule replaces the model's, as it should
    ".*accumulate_grad_batches != 1.* and overriding.*",  # the hook is meant to run at each optimizer step
    ".*requested to overfit but enabled.*",  # the data module keeps one order; Lightning does not know its loader
    ".*torch.jit.trace.* is deprecated.*",  # how torch's TensorBoard writer makes the graph
    ".*infer the `batch_size` from an ambiguous collection.*",  # it takes the number of images, as it should
    ".*might cause the trace to be incorrect.*",  # the graph is drawn and never run
)
"""Warnings of the libraries that do not apply here, each with the reason."""
NOISE = (
    "💡 Tip",
    "Loading `train_dataloader`",
    "Restoring states",
    "Loaded model weights",
    "TPU available",
    "Seed set to",
    "Time limit reached",  # the line about the stop has the step
    "Running in `fast_dev_run` mode",
    "GPU available: False",
    "`Trainer.fit` stopped: `max_",  # in the middle of the progress bar
)
"""Log lines of Lightning that advertise, or report hardware that is missing or options as they were given."""
