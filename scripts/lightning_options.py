"""Try the arguments and the callbacks of Lightning's trainer with tiny trainings, and print what happens as Markdown.

python scripts/lightning_options.py > docs/lightning.md
python scripts/lightning_options.py Timer max_time   # the rows of these alone
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import lightning
import torch
import yaml
from lightning.pytorch import Trainer, callbacks

from cifar_lightning.__main__ import main

TINY = (
    *("--model", "MLPClassifier", "--model.net.widths", "[16]", "--data.source", "synthetic", "--data.synthetic_train"),
    *("500", "--data.synthetic_test", "100", "--data.val_size", "100", "--data.batch_size", "100"),
    *("--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"),
    *("--figures.every_n_epochs", "0", "--layers.every_n_steps", "0"),
)
"""A training of 2 epochs of 4 steps, without figures."""

# Values that a user would try, good and bad; what a list holds is one case each, a text with blanks several options.
VALUES: dict[str, list[str]] = {
    "accelerator": ["auto", "cpu", "gpu", "mps", "tpu", "nonsense"],
    "strategy": [
        "auto",
        "ddp",
        "ddp_spawn",
        "ddp_notebook",
        "DDPStrategy --trainer.strategy.start_method spawn",
        "fsdp",
        "deepspeed",
        "single_device",
        "xla",
        "nonsense",
    ],
    "devices": ["1", "auto", "2", "[0]", "[0,1]", "0", "-1", "nonsense"],
    "num_nodes": ["1", "0", "2", "-1"],
    "precision": [
        "32-true",
        "bf16-mixed",
        "bf16-true",
        "64-true",
        "16-mixed",
        "16-true",
        "32",
        "transformer-engine",
        "8",
    ],
    "logger": [
        "true",
        "false",
        "CSVLogger --trainer.logger.save_dir csv",
        "TensorBoardLogger --trainer.logger.save_dir tb",
        "WandbLogger",
        "MLFlowLogger",
        "CometLogger",
        "nonsense",
    ],
    "callbacks": ["null", "[]", "nonsense"],
    "fast_dev_run": ["true", "2", "0", "-1"],
    "max_epochs": ["3", "0", "-1", "-2", "null"],
    "min_epochs": ["1", "5", "-1"],
    "max_steps": ["3", "0", "-1", "-2"],
    "min_steps": ["3", "20", "-1"],
    "max_time": ["00:00:10:00", "00:00:00:01", "{minutes: 5}", "nonsense"],
    "limit_train_batches": ["2", "0.5", "1.0", "0", "0.0", "0.001", "-1", "1.5", "100"],
    "limit_val_batches": ["1", "0.5", "0", "0.0", "0.001", "-1"],
    "limit_test_batches": ["1", "1.0", "0", "0.001", "-1"],
    "limit_predict_batches": ["1", "0", "0.001"],
    "overfit_batches": ["2", "0.5", "0.001", "-1"],
    "val_check_interval": ["0.5", "2", "3", "10", "00:00:00:01", "0", "1.5", "nonsense"],
    "check_val_every_n_epoch": ["2", "3", "null", "0", "-1", "null --trainer.val_check_interval 3"],
    "num_sanity_val_steps": ["2", "-1", "0", "-2"],
    "log_every_n_steps": ["1", "0", "-1"],
    "enable_checkpointing": ["true", "false"],
    "enable_progress_bar": ["true", "false"],
    "enable_model_summary": ["true", "false"],
    "accumulate_grad_batches": ["3", "100", "0", "-1"],
    "gradient_clip_val": ["0.5", "0", "-1", ".nan"],
    "gradient_clip_algorithm": [
        "value --trainer.gradient_clip_val 0.5",
        "norm --trainer.gradient_clip_val 0.5",
        "nonsense",
    ],
    "deterministic": ["true", "warn", "false"],
    "benchmark": ["true", "false"],
    "inference_mode": ["true", "false"],
    "use_distributed_sampler": ["true", "false"],
    "profiler": [
        "simple",
        "advanced",
        "pytorch",
        "SimpleProfiler",
        "PyTorchProfiler --trainer.profiler.row_limit 5",
        "xla",
        "nonsense",
    ],
    "detect_anomaly": ["true"],
    "barebones": ["true"],
    "plugins": [
        "AsyncCheckpointIO",
        "MixedPrecision --trainer.plugins.precision bf16-mixed --trainer.plugins.device cpu",
        "TorchSyncBatchNorm",
        "LightningEnvironment",
        "TorchElasticEnvironment",
        "SLURMEnvironment",
        "nonsense",
    ],
    "sync_batchnorm": ["true"],
    "reload_dataloaders_every_n_epochs": ["1", "-1"],
    "default_root_dir": ["elsewhere"],
    "enable_autolog_hparams": ["true", "false"],
    "model_registry": ["name"],
}
ARGUMENTS: dict[str, list[str]] = {
    "BackboneFinetuning": ["", "unfreeze_backbone_at_epoch: 1"],
    "BatchSizeFinder": ["max_trials: 2", "mode: nonsense"],
    "DeviceStatsMonitor": ["", "cpu_stats: false"],
    "EarlyStopping": ["monitor: val/loss", "monitor: val_loss", "{monitor: val/loss, mode: nonsense}"],
    "GradientAccumulationScheduler": ["scheduling: {0: 1, 1: 2}", "scheduling: {}", "scheduling: {1: 0}"],
    "LearningRateFinder": ["", "num_training_steps: 5"],
    "LearningRateMonitor": ["", "logging_interval: epoch", "logging_interval: nonsense"],
    "ModelCheckpoint": ["monitor: val/loss", "save_top_k: -1", "monitor: val_loss", "save_top_k: -2"],
    "ModelPruning": [
        "{pruning_fn: l1_unstructured, amount: 0.5}",
        "{pruning_fn: l1_unstructured, amount: 5.5}",
        "pruning_fn: nonsense",
    ],
    "ModelSummary": ["", "max_depth: 2", "max_depth: -2"],
    "OnExceptionCheckpoint": ["dirpath: kept"],
    "RichProgressBar": ["", "refresh_rate: 1"],
    "SpikeDetection": ["", "mode: nonsense"],
    "StochasticWeightAveraging": ["swa_lrs: 0.001", "swa_lrs: -1", "{swa_lrs: 0.001, swa_epoch_start: 5}"],
    "ThroughputMonitor": ["", "batch_size_fn: nonsense"],
    "Timer": ["duration: '00:00:10:00'", "duration: x", "duration: '00:00:00:00'"],
    "TQDMProgressBar": ["refresh_rate: 20", "refresh_rate: -1"],
    "EMAWeightAveraging": ["decay: 0.5", ""],
}
"""Arguments of callbacks to try, as YAML; a callback that is not here is tried without any."""

OF_OTHER_STAGES = {"limit_test_batches": "test", "limit_predict_batches": "predict"}


def run(command: str, *args: str, apart: bool = False) -> tuple[str, str]:
    """Run a command of the program.

    Args:
        command: such as "fit".
        args: the command line after it.
        apart: run it in a process of its own, where it may start others.

    Returns:
        "done", "refused" or "traceback", and what goes with it: the message or the exception.
    """
    said = io.StringIO()
    if apart:
        words = [sys.executable, "-m", "cifar_lightning", command, *args]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return "refused", "nothing: it waits for other processes (ended after 120 s)"
        said.write(done.stderr)
        status: object = done.returncode
        if "Traceback" in done.stderr:
            return "traceback", done.stderr.strip().splitlines()[-1]
    else:
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                status = main([command, *args])
        except SystemExit as stop:
            status = stop.code
        except BaseException as error:  # one row, whatever happens
            where = traceback.extract_tb(error.__traceback__)[-1]
            return "traceback", f"{type(error).__name__}: {str(error).splitlines()[:1]} ({where.name})"
        finally:
            torch.use_deterministic_algorithms(False)
            torch.autograd.set_detect_anomaly(False)
    if status == 0:
        return "done", ""
    lines = said.getvalue().splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    message = lines[starts[-1] :] if starts else lines[-1:]
    more = f" [and {len(message) - 1} more lines]" if len(message) > 1 else ""
    return "refused", f"{message[0].removeprefix('error: ') if message else f'exit status {status}'}{more}"


def attempt(*options: str, apart: bool = False) -> str:
    """Train with options, continue, test, and read the configuration back.

    Args:
        options: of the training.
        apart: train and test in processes of their own.

    Returns:
        What happened, as a cell of a table.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        kind, words = run("fit", *TINY, *options, apart=apart)
        if kind != "done":
            return cell(kind, words)
        runs = list(Path("lightning_logs").glob("*/version_0"))
        if not runs:
            return "trained, writes nothing"
        result = json.loads((runs[0] / "result.json").read_text())
        done = [f"trained ({result['fit']['epochs']} epochs, {result['fit']['steps']} steps, {result['status']})"]
        if not (runs[0] / "checkpoints/last.ckpt").is_file():
            return f"{done[0]}, no checkpoint"
        again = ("--config", str(runs[0] / "config.yaml"), "--print_config")
        for name, command, words_of in (
            ("resumed", "fit", ("--run", str(runs[0]), "--trainer.max_epochs", "3")),
            ("tested", "test", ("--run", str(runs[0]))),
            ("read back", "fit", again),
        ):
            kind, words = run(command, *words_of, apart=apart and name != "read back")
            done.append(name if kind == "done" else f"not {name}: {cell(kind, words)}")
            if name == "resumed" and kind == "done":
                after = json.loads((runs[0] / "result.json").read_text())["fit"]
                done[-1] += f" ({after['epochs']} epochs, {after['steps']} steps)"
        return ", ".join(done)


def cell(kind: str, words: str) -> str:
    """Return what did not work as a cell of a table."""
    short = (words if len(words) < 330 else f"{words[:330]} ...").replace("|", "\\|").replace("\n", " ")
    return f"refused: {short}" if kind == "refused" else f"**traceback**: {short}"


def evaluated(stage: str, option: str, value: str) -> str:
    """Train, and evaluate with an option of another stage than the training."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        run("fit", *TINY)
        kind, words = run(stage, "--run", "lightning_logs/mlp/version_0", f"--trainer.{option}", value)
        return f"{stage} works" if kind == "done" else cell(kind, words)


def option_rows(only: set[str]) -> list[list[str]]:
    """Try the trainer's arguments."""
    rows = []
    for name in inspect.signature(Trainer.__init__).parameters:
        if name in ("self", "kwargs") or (only and name not in only):
            continue
        for value in VALUES.get(name, ["(no value tried)"]):
            if name in OF_OTHER_STAGES:
                happened = evaluated(OF_OTHER_STAGES[name], name, value)
            else:
                many = name == "strategy" and value.lower().startswith("ddp")
                more = ("--trainer.devices", "2") if many else ()
                # Processes start each other from the command line, which is not that of this script.
                apart = many or (name, value) in (("devices", "2"), ("devices", "[0,1]"), ("num_nodes", "2"))
                happened = attempt(f"--trainer.{name}", *value.split(" "), *more, apart=apart)
            rows.append([f"`{name}`", f"`{value}`", happened])
            print(rows[-1], file=sys.stderr)
    return rows


def callback_rows(only: set[str]) -> list[list[str]]:
    """Try the callbacks that Lightning has."""
    rows = []
    for name in callbacks.__all__:
        if only and name not in only:
            continue
        for arguments in ARGUMENTS.get(name, [""]):
            entry = {"class_path": name, "init_args": yaml.safe_load(arguments) or {}}
            happened = attempt("--trainer.callbacks", json.dumps([entry]))
            rows.append([f"`{name}`", f"`{arguments}`" if arguments else "", happened])
            print(rows[-1], file=sys.stderr)
    return rows


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(only: set[str]) -> str:
    """Return the page."""
    options, found = option_rows(only), callback_rows(only)
    broken = sum("**traceback**" in row[-1] for row in options + found)
    return f"""# Lightning's trainer and callbacks

What `fit` makes of each argument of `Trainer` and of each callback that ships with Lightning {lightning.__version__}.
Each case is a training of 2 epochs of 4 steps on the CPU (torch {torch.__version__}), continued to 3 epochs with
`fit --run`, tested with `test --run`, and its `config.yaml` read back. "Refused" is one message and exit status 2.
Cases that end in a traceback: {broken}. Made by `python scripts/lightning_options.py > docs/lightning.md`.

## Trainer options

{table(["option", "value", "what happens"], options)}

## Callbacks

{table(["callback", "arguments", "what happens"], found)}
"""


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(page(set(sys.argv[1:])))
