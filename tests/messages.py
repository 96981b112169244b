"""Mistakes that people make at the command line and in YAML, each with what its message must hold.

`python tests/messages.py` writes docs/messages.md, in which every message stands as it is printed.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tiny import SIZES as TINY

from cifar_lightning.__main__ import main

PAGE = Path(__file__).parents[1] / "docs/messages.md"
SIZES = " ".join(TINY)
INTRODUCTION = """# Messages

What the program answers to mistakes that people make. Every message is one line or a few, names the option as it is
typed, what was expected and what was got, and ends with exit status 2; nothing is written. `python tests/messages.py`
wrote this page by making each of these mistakes, and a test compares it with what is printed today.
"""


@dataclass(frozen=True)
class Mistake:
    """A command line that is refused.

    Attributes:
        line: the command line.
        words: what the message must hold.
        files: contents of files in the working folder, by name; None for a folder.
    """

    line: str
    words: tuple[str, ...]
    files: tuple[tuple[str, str | bytes | None], ...] = ()


def typed(line: str, *words: str) -> Mistake:
    """A mistake at the command line."""
    return Mistake(line, words)


def in_yaml(content: str | bytes, *words: str) -> Mistake:
    """A mistake in config.yaml, in a training that has all else it needs."""
    return Mistake("fit --model MLPClassifier --config config.yaml", words, (("config.yaml", content),))


FIT = "fit --model MLPClassifier"
SECTIONS: dict[str, list[Mistake]] = {
    "Commands": [
        typed("", "fit, validate, test, predict, report, export, sweep, compare, audit, or data"),
        typed("fitt", "got fitt", "`fit`"),
        typed("train", "got train", "`fit`"),
        typed("evaluate --run runs/1", "`validate`", "`test`"),
        typed("--run runs/1 report", "before all options", "got --run first"),
        typed("download", "Did you mean `data --download`?"),
        typed("--config configs/mlp.yaml report", "before all options", "got --config first"),
    ],
    "Names of options": [
        typed(f"{FIT} --data.batch_sise 3", "`--data.batch_sise`", "Did you mean `--data.batch_size`?"),
        typed(f"{FIT} --data.batch-size 3", "Did you mean `--data.batch_size`?"),
        typed(f"{FIT} -data.batch_size 3", "`-data.batch_size`", "Did you mean `--data.batch_size`?"),
        typed(f"{FIT} --batch_size 3", "Did you mean `--data.batch_size`?"),
        typed(f"{FIT} --lr 0.1", "Did you mean `--model.optimizer.lr`?"),
        typed(f"{FIT} --epochs 5", "Did you mean `--trainer.max_epochs`?"),
        typed(f"{FIT} --data.max_epochs 5", "Did you mean `--trainer.max_epochs`?"),
        typed(f"{FIT} --trainer.max 5", "`--trainer.max_epochs`, `--trainer.max_steps`, or `--trainer.max_time`"),
        typed(f"{FIT} --model.width 32", "Did you mean `--model.net.widths`?"),
        typed(f"{FIT} --model.net.whiten_px 2", "of MLP.", "`--model.net.whiten_components`"),
        typed(f"{FIT} --model.optimizer.momentun 0.9", "Did you mean `--model.optimizer.momentum`?"),
        typed(f"{FIT} --model.optimizer Adam --model.optimizer.momentum 0.9", "of Adam"),
        typed(
            f"{FIT} --trainer.callbacks+=LearningRateMonitor --trainer.callbacks.log_weight_deca=true",
            "Did you mean `--trainer.callbacks.log_weight_decay`?",
        ),
        typed(f"{FIT} --trainer.gpus 1", "`--trainer.devices` and `--trainer.accelerator`"),
        typed(f"{FIT} --trainer.resume_from_checkpoint x.ckpt", "`--ckpt_path`"),
        typed(f"{FIT} --trainer.replace_sampler_ddp false", "`--trainer.use_distributed_sampler`"),
        typed(f"{FIT} --data.num_workers 4", "without worker processes"),
        typed(f"{FIT} --images cat.jpg", "`predict --run FOLDER --images PATH...`"),
        typed(f"{FIT} --split test", "`report --run FOLDER --split val`"),
        typed(f"{FIT} --data.seed 3", "`--seed_everything`"),
        typed(f"{FIT} configs/mlp.yaml", "Did you mean `--config configs/mlp.yaml`?"),
        typed(f"{FIT} data.batch_size=3", "Did you mean `--data.batch_size=3`?"),
        typed(f"{FIT} --qwertz 3", "`cifar-lightning fit --help` lists all"),
        typed(
            f"{FIT} --data.batch_sise 3 --trainer.max_epochs many --model.net.activation gleu --batch 2 --opt x",
            "`--data.batch_size`",
            "a whole number or null, got many",
            "more.",
        ),
    ],
    "Values": [
        typed(f"{FIT} --trainer.precision 8", "one of 64, 32, 16", "32-true", "or null, got 8."),
        typed(f"{FIT} --trainer.max_epochs many", "`--trainer.max_epochs` to be a whole number or null, got many."),
        typed(f"{FIT} --data.batch_size 2.5", "`--data.batch_size` to be a whole number or null, got 2.5."),
        typed(f"{FIT} --data.batch_size", "Expected a value after `--data.batch_size`: a whole number or null."),
        typed(f"{FIT} --data.download maybe", "true or false, got maybe."),
        typed(f"{FIT} --model.net.activation gleu", "one of relu, gelu, silu", "Did you mean `gelu`?"),
        typed(f"{FIT} --model.net.widths 512,256", "a list of whole numbers such as [2, 3]", "got 512,256."),
        typed(f"{FIT} --model.optimizer.lr fast", "`--model.optimizer.lr` to be a number, got fast."),
        typed(f"{FIT} --trainer 5", "`--trainer` to hold options, got 5."),
        typed(f"{FIT} --checkpoint_every_n_steps -1", "a whole number of at least 0, got -1."),
        typed(f"{FIT} {SIZES} --model.label_smoothing 1", "`--model.label_smoothing` in [0, 1), got 1.0."),
        typed(f"{FIT} {SIZES} --data.batch_size 0", "`--data.batch_size`"),
    ],
    "Classes": [
        typed("fit", "Expected a network", "`--config configs/mlp.yaml`", "`--model MLPClassifier`"),
        typed("fit --model.net.widths [32] --model MLPClassifier", "Expected a network before its options"),
        typed("fit --model.net.help torchvision.models.resnet18", "Expected a class after `--model.net.help`"),
        typed("fit --model CNNClasifier", "MLPClassifier", "Did you mean `CNNClassifier`?"),
        typed("fit --model AdamW", "a model class", "got AdamW."),
        typed(f"{FIT} --model.optimizer Nope", "an optimizer class such as torch.optim.AdamW, got Nope."),
        typed(f"{FIT} --model.optimizer torch.optim.AdmaW", "Did you mean `torch.optim.AdamW`"),
        typed(f"{FIT} --model.optimizer cifar_lightning.models.CNN", "an optimizer class", "another kind of class"),
        typed(f"{FIT} --model.optimizer Muon", "torch.optim.Muon", "cifar_lightning.optim.Muon"),
        typed("fit --model.net MLP", "the name of several classes: write cifar_lightning.models.MLP."),
        typed(f"{FIT} --trainer.callbacks+=LearningRateMonitr", "Did you mean `LearningRateMonitor`?"),
        Mistake(
            f"{FIT} --config own.yaml",
            ("got mine.Callback, which a configuration may not import", "add `--allow mine` to the command line"),
            (("own.yaml", "trainer:\n  callbacks: mine.Callback\n"),),
        ),
    ],
    "Configuration files": [
        typed(f"{FIT} --config missing.yaml", "missing.yaml", "no such file"),
        Mistake(
            f"{FIT} --config confg.yaml", ("Did you mean config.yaml?",), (("config.yaml", "seed_everything: 1\n"),)
        ),
        Mistake(f"{FIT} --config recipes", ("the folder recipes",), (("recipes", None),)),
        typed(f"{FIT} --config", "Expected a file after `--config`."),
        in_yaml("data:\n  batch_sise: 3\n", "`data.batch_sise` in config.yaml (line 2)", "`data.batch_size`"),
        in_yaml("batch_size: 3\n", "`batch_size` in config.yaml (line 1)", "Did you mean `data.batch_size`?"),
        in_yaml("trainer:\n  gpus: 1\n", "`trainer.gpus` in config.yaml (line 2)", "`trainer.devices`"),
        in_yaml("trainer:\n  max_epochs: many\n", "`trainer.max_epochs` in config.yaml (line 2)", "got many."),
        in_yaml(
            "model:\n  class_path: CNNClasifier\n",
            "`model` in config.yaml (line 2)",
            "Did you mean `CNNClassifier`?",
        ),
        in_yaml(
            "model:\n  class_path: CNNClassifier\n  init_args:\n    width: [8]\n",
            "`model.width` of CNNClassifier in config.yaml (line 4)",
            "`model.net.widths`",
        ),
        in_yaml(
            "trainer:\n  callbacks:\n  - class_path: LearningRateMonitr\n",
            "`trainer.callbacks` in config.yaml (line 3)",
            "Did you mean `LearningRateMonitor`?",
        ),
        in_yaml(
            "trainer:\n  max_epochs: 2\ndata:\n  flip: true\ntrainer:\n  devices: 1\n",
            "config.yaml",
            "`trainer` once, got it in lines 1 and 5",
        ),
        in_yaml("data: 5\n", "`data` in config.yaml (line 1) to hold options, got 5."),
        in_yaml("trainer:\ndata:\n  flip: true\n", "`trainer` in config.yaml (line 1) to hold options, got null."),
        in_yaml("data:\n\tbatch_size: 3\n", "config.yaml (line 2)", "a tab, where YAML wants spaces"),
        in_yaml("data:\n  batch_size: 3\n flip: true\n", "config.yaml (line 3)", "indented alike"),
        in_yaml("- data\n- trainer\n", "config.yaml", "got a list."),
        in_yaml("just words\n", "config.yaml", "`key: value` lines"),
        in_yaml("1: 2\n", "config.yaml", "got the key 1."),
        in_yaml("fit:\n  data:\n    batch_size: 3\n", "below `fit:` (line 1)", "`--config config.yaml fit`"),
        in_yaml("data:\n  batch_size: 3\n".encode("utf-16"), "Expected UTF-8 text in config.yaml, got UTF-16"),
        in_yaml("name: café\n".encode("latin-1"), "Expected UTF-8 text in config.yaml, got byte 0xe9 in line 1"),
    ],
    "Other commands": [
        typed("report", "`--run FOLDER`"),
        typed("report --rnu runs/1", "Did you mean `--run`?"),
        typed("report --run runs/1 --split tset", "one of val or test", "Did you mean `test`?"),
        typed("report --run runs/1 --images many", "`--images` to be a whole number, got many."),
        typed("export --run runs/1 --format onx", "Did you mean `onnx`?"),
        typed("export --run runs/1 --split val", "It belongs to `report --run FOLDER --split val`."),
        typed("export runs/1", "Did you mean `--run runs/1`?"),
    ],
}
MISTAKES = [mistake for mistakes in SECTIONS.values() for mistake in mistakes]


def make(mistake: Mistake, run: Callable[[list[str]], int] = main) -> tuple[int, str]:
    """Makes a mistake in the current folder, and returns exit status and message."""
    for name, content in mistake.files:
        if content is None:
            Path(name).mkdir()
        else:
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = run(shlex.split(mistake.line))
    return status, said.getvalue()


def row(mistake: Mistake, message: str) -> str:
    """A row of the page."""
    line = f"`{' '.join(['...', *mistake.line.replace(SIZES + ' ', '').split()])}`"
    for name, content in mistake.files:
        if isinstance(content, str):
            shown = html.escape(content.rstrip()).replace("\t", "&rarr;").replace(" ", "&nbsp;").replace("\n", "<br>")
            line += f"<br>{name}:<br><code>{shown}</code>"
    text = html.escape(message.strip(), quote=False).replace("\n", "<br>").replace("|", "\\|")
    return f"| {line} | {text} |\n"


def page() -> str:
    """The page, from what is printed."""
    text = INTRODUCTION
    for title, mistakes in SECTIONS.items():
        text += f"\n## {title}\n\n| typed after `python -m cifar_lightning` | printed |\n| --- | --- |\n"
        for mistake in mistakes:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                text += row(mistake, make(mistake)[1])
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
