"""The LightningModule: normalisation, steps and metrics for any network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cifar_lightning.data.loader import Batch, BatchLoader, check_batch
from cifar_lightning.metrics import ClassificationMetrics, EpochOutputs
from cifar_lightning.models import introspection
from cifar_lightning.models.checks import argument_problems, not_logits
from cifar_lightning.models.compilation import compile_ahead
from cifar_lightning.models.optimization import ScheduledModule
from cifar_lightning.models.tta import TTAName, tta_logits
from cifar_lightning.optim.schedule import ScheduleName
from cifar_lightning.private import any_batch_size

__all__ = ["CIFAR10_MEAN", "CIFAR10_STD", "ImageClassifier"]

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
"""Mean and standard deviation of each channel over all pixels of the 50,000 training images, in [0, 1]. (The widely
copied 0.2023, 0.1994, 0.2010 is the mean over images of each image's own deviation.)"""


class ImageClassifier(ScheduledModule):
    """Trains and evaluates a network on uint8 images.

    Args:
        net: Any network from normalised float images (B, 3, H, W) to logits (B, 10). What it may tell about itself is
            in `cifar_lightning.models.introspection`.
        optimizer: The optimizer and its arguments; `weight_decay` acts on weights, not on biases and norm scales.
        schedule: How the learning rate changes after the warm-up, at every step: "constant", "linear" or "cosine" to
            the last step, or a scheduler class such as torch.optim.lr_scheduler.OneCycleLR.
        schedule_args: Arguments of a scheduler class. Its length (`total_steps`, `total_iters` or `T_max`) defaults to
            the steps of the training, and its `max_lr` to the learning rate of the optimizer.
        warmup_epochs: Epochs over which the learning rate rises to its peak; a fraction is allowed.
        cooldown_epochs: Epochs at the end that keep the final learning rate; a fraction is allowed.
        final_lr_ratio: Learning rate at the end of training as a fraction of its peak.
        freeze_epochs: Parts of the network and the epochs after which each is no longer trained, such as
            {stages.0: 6.5}. Its learning rate falls to 0 until then, and later no gradients are computed for it
            (FreezeOut, Brock et al. 2017, arXiv 1706.04983).
        loss: The loss from logits (B, 10) and labels (B,), the mean over images, such as torch.nn.MultiMarginLoss.
            Default: the cross-entropy with `label_smoothing`.
        label_smoothing: Share of the target probability spread evenly over all classes, in [0, 1).
        tta: Views to average in `validate`, `test` and `predict`: "none", "flip" (mirror image), "flip_translate" (six
            views) or "flip_grid" (eighteen). The validations of a training take each image as it is, which is cheaper.
        temperature: Divides the logits outside of training, which makes the network surer below 1 and less sure above
            (temperature scaling, Guo et al. 2017, arXiv 1706.04599). `report` finds the one that suits held-out images.
        channels_last: Keep images and weights as NHWC in memory: faster convolutions on CPUs and tensor cores.
        compile: Compile the network with torch.compile for training, once for each image size and before the clock of
            the training starts; checkpoints stay the same.

    Raises:
        ValueError: for arguments out of range; all problems in one message.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
        schedule: ScheduleName | type[LRScheduler] = "linear",
        schedule_args: dict[str, Any] | None = None,
        warmup_epochs: float = 0.0,
        cooldown_epochs: float = 0.0,
        final_lr_ratio: float = 0.0,
        freeze_epochs: dict[str, float] | None = None,
        loss: nn.Module | None = None,
        label_smoothing: float = 0.0,
        tta: TTAName = "none",
        temperature: float = 1.0,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        placed = net.to(memory_format=torch.channels_last) if channels_last else net
        super().__init__(
            placed,
            optimizer,
            schedule,
            schedule_args or {},
            warmup_epochs,
            cooldown_epochs,
            final_lr_ratio,
            freeze_epochs or {},
        )
        self.label_smoothing = label_smoothing
        smoothed = partial(F.cross_entropy, label_smoothing=label_smoothing)
        self.loss: Callable[[Tensor, Tensor], Tensor] = smoothed if loss is None else loss
        self.tta = tta
        self.temperature = temperature
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.compile_net = compile
        if problems := argument_problems(self):
            raise ValueError(" ".join(problems))

        self.register_buffer("mean", torch.tensor(CIFAR10_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(CIFAR10_STD).view(3, 1, 1))
        self.metrics = nn.ModuleDict(
            {f"{split}_metrics": ClassificationMetrics() for split in ("train", "val", "test")}
        )
        self.confusion: dict[str, Tensor] = {}
        """Confusion matrix (10, 10) of each split ("train", "val", "test") that was evaluated last."""
        self.example_input_array = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)  # makes the summary count FLOPs
        self.trained_steps = 0
        """Optimizer steps behind the weights that were loaded."""
        self._weight = 1.0
        self._epoch_outputs = EpochOutputs()
        self.epoch_metrics: dict[str, float] = {}
        """Metrics of the splits that were evaluated in this epoch, such as val/acc."""

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, 32, 32) to floats of mean 0 and deviation 1 in the memory format of the network.

        Raises:
            ValueError: for images that are not uint8 in [0, 255], which would be normalised wrongly in silence.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"Expected `images` as uint8 pixels in [0, 255], got {images.dtype}.")
        # Converted first, then in place: operations on mixed types take ten times as long on a CPU.
        floats = images.to(self.std.dtype).mul_(1 / (255 * self.std)).sub_(self.mean / self.std)
        floats = floats.contiguous(memory_format=self.memory_format)
        if self.compile_net:
            any_batch_size(floats)
        return floats

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, 32, 32) to logits (B, 10), without test-time augmentation."""
        logits = self.net(self.normalize(images))
        return logits if self.training else logits / self.temperature

    def predict_logits(self, images: Tensor, tta: TTAName | None = None) -> Tensor:
        """uint8 images (B, 3, 32, 32) to logits (B, 10), with these views averaged; default: those of the model."""
        # Past a compiled call: evaluation is too short to earn a compilation of its own.
        return tta_logits(self.net.forward, self.normalize(images), tta or self.tta) / self.temperature

    def check_net(self, image_sizes: Iterable[int] = ()) -> None:
        """Pass two images of each size through the network, as in a training and as in an evaluation.

        Buffers, modes and the random state stay as they were.

        Args:
            image_sizes: Sides in pixels, besides 32.

        Raises:
            ValueError: naming the option when the network does not return finite logits (2, 10).
        """
        for name in self.trained_networks():
            net = self.get_submodule(name)
            with introspection.undisturbed(net):
                for size in sorted({32, *image_sizes}, reverse=True):
                    self._check_size(name, net, size)

    def _check_size(self, name: str, net: nn.Module, size: int) -> None:
        # Neither blank nor alike: a network may divide by the deviation of an image or of a batch. In `setup` Lightning
        # already names the device of the training, and the network is not there yet.
        pixels = torch.arange(2 * 3 * size * size, device=self.mean.device) * 37 % 251
        images = self.normalize(pixels.to(torch.uint8).view(2, 3, size, size))
        for is_training in (True, False):
            net.train(is_training)
            try:
                logits = net.forward(images)
            except Exception as error:  # whatever a network raises
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
                what = (
                    f"`model.{name}` to take images (2, 3, 32, 32)"
                    if size == 32
                    else f"`data.image_sizes` that the network takes, got {size} pixels"
                )
                raise ValueError(
                    f"Expected {what}{', got' if size == 32 else ':'} {type(error).__name__}: {reason}."
                ) from error
            if problem := not_logits(logits):
                raise ValueError(f"Expected `model.{name}` to return finite logits (2, 10), got {problem}")

    def setup(self, stage: str) -> None:
        """Check the network, compute the layers that come from data, and compile.

        Compiled in place, the names in checkpoints do not change; evaluation stays eager. A checkpoint to continue
        from is loaded after this.

        Raises:
            ValueError: when the network does not take the images.
        """
        if stage != "fit":
            return
        data = getattr(self._trainer, "datamodule", None)
        if data is not None:
            self.check_net(data.image_sizes)
            self.initialise_from(data.train.images)
        if self.compile_net:
            for net in self.networks:
                net.compile(dynamic=False)

    def on_fit_start(self) -> None:
        """Compile the networks, before the clock of the training starts."""
        if self.compile_net:
            compile_ahead(self)

    def initialise_from(self, images: Tensor) -> None:
        """Compute the layers that come from data, from evenly chosen images out of uint8 (N, 3, 32, 32)."""
        for net in self.networks:
            count = getattr(net, "statistics_images", 1000)
            chosen = torch.arange(0, len(images), max(1, len(images) // count))
            introspection.initialise_from(net, self.normalize(images[chosen]))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Check the first batch of an epoch; a GPU has to wait for it.

        Raises:
            ValueError: when it does not hold images and labels.
        """
        if batch_idx == 0:
            check_batch(batch)
        super().on_train_batch_start(batch, batch_idx)
        loader = self.trainer.train_dataloader
        self._weight = loader.weight(batch_idx) if isinstance(loader, BatchLoader) else 1.0

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients; those of a step are the mean over its images, whatever the sizes of its batches."""
        super().backward(loss if self._weight == 1 else loss * self._weight, *args, **kwargs)

    def on_validation_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """The same in an evaluation."""
        if batch_idx == 0:
            check_batch(batch)

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch. A training step of your own keeps its outputs as this one does."""
        logits = self(batch.images)
        self.keep_outputs(logits, batch.labels)
        return self.loss(logits, batch.labels)

    def keep_outputs(self, logits: Tensor, labels: Tensor) -> None:
        """Keep logits (B, 10) and labels (B,) of a training step for the metrics at the end of the epoch.

        (Some of the metrics would make a GPU wait at every step.)
        """
        self._epoch_outputs.append(logits.detach(), labels)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the metrics of the epoch after its last batch: before validation and before any callback looks.

        Those of an epoch that `max_steps` cuts short go into no curve: a longer training would have a point more there.
        """
        steps, is_over = self.trainer.max_steps, self.trainer.is_last_batch
        if is_over or (steps != -1 and self.trainer.global_step >= steps):
            logits, labels = self._epoch_outputs.tensors()
            if len(labels):  # a training step of one's own may keep none
                self._metrics("train").update(logits, labels)
                self._log_metrics("train", to_loggers=is_over)

    def on_train_epoch_start(self) -> None:
        """Starts the metrics of the epoch anew."""
        self._epoch_outputs = EpochOutputs()
        self.epoch_metrics = {}

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Gradients that add up over several batches stay where they are.

        New ones would come to lie among the activations, and break up the memory that later batches need in large
        pieces; where each batch makes a step, a gradient that is not there costs no addition.
        """
        optimizer.zero_grad(set_to_none=self.trainer.accumulate_grad_batches == 1)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits (B, 10) of one batch, which are counted as well."""
        return self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits (B, 10) of one batch, which are counted as well."""
        return self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """Indices (B,), labels (B,) and probabilities (B, 10) of one batch."""
        return batch.indices, batch.labels, self.predict_logits(batch.images).float().softmax(1)

    def on_validation_epoch_end(self) -> None:
        """Logs the validation metrics."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs the test metrics."""
        self._log_metrics("test")

    def _metrics(self, split: str) -> ClassificationMetrics:
        metrics = self.metrics[f"{split}_metrics"]
        assert isinstance(metrics, ClassificationMetrics)
        return metrics

    def _evaluate(self, split: str, batch: Batch) -> Tensor:
        # Eighteen views after each epoch would take longer than the epoch.
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        tta: TTAName = "none" if fitting else self.tta
        logits = self.predict_logits(batch.images, tta)
        self._metrics(split).update(logits, batch.labels)
        return logits

    def _log_metrics(self, split: str, to_loggers: bool = True) -> None:
        metrics = self._metrics(split)
        scalars, self.confusion[split] = metrics.compute()
        metrics.reset()
        # The values are those of all processes already; sync_dist averages equal numbers and silences the advice.
        found = {f"{split}/{name}": value for name, value in scalars.items()}
        if to_loggers:
            self.log_dict(found, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        self.epoch_metrics |= {name: float(f"{float(value):.7g}") for name, value in found.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the metrics of the epoch need: the outputs of each process so far when it is not over."""
        checkpoint["epoch_metrics"] = self.epoch_metrics
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.is_last_batch:
            outputs = [part.cpu().clone() for part in self._epoch_outputs.tensors()]
            everyone: list[Any] = [outputs] * self.trainer.world_size
            if self.trainer.world_size > 1:
                torch.distributed.all_gather_object(everyone, outputs)
            checkpoint["epoch_outputs"] = everyone

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes how long the weights were trained, and takes over the outputs of an epoch that is not over."""
        self.trained_steps = checkpoint["global_step"]
        everyone = checkpoint.get("epoch_outputs")
        is_fitting = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        if is_fitting:
            self.epoch_metrics = dict(checkpoint.get("epoch_metrics", {}))
        if everyone and is_fitting:
            if len(everyone) != self.trainer.world_size:
                raise ValueError(
                    f"Expected {len(everyone)} processes, as the checkpoint was made inside an epoch, got "
                    f"{self.trainer.world_size}. Continue with the `trainer.devices` that the run had."
                )
            logits, labels = everyone[self.trainer.global_rank]
            self._epoch_outputs = EpochOutputs()
            self._epoch_outputs.append(logits.to(self.device), labels.to(self.device))
