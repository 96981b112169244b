"""The commands of `cifar-lightning`, and the text of its `--help`."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COMMANDS", "HELP", "NAMES", "Command"]


class Command(NamedTuple):
    """A command of the program.

    Attributes:
        help: what it does, in one line.
        function: `module:name` of a function that takes the arguments after the command and returns the exit status.
            It is imported when the command runs.
        whole_line: pass the whole command line to the function. `--config FILE` may then stand before the command.
    """

    help: str
    function: str
    whole_line: bool = False


COMMANDS = {
    "fit": Command("Train a network; with --test, test its best weights afterwards.", "cli.run:run_trainer", True),
    "validate": Command("Evaluate a trained network on the validation images.", "cli.run:run_trainer", True),
    "test": Command(
        "Evaluate a trained network on the test images; the mean of several runs.", "cli.run:run_trainer", True
    ),
    "predict": Command("Write the predictions of the test images to a file.", "cli.run:run_trainer", True),
    "predict --images": Command("Predict your own pictures.", "inference:predict_pictures"),
    "report": Command("Write a page that shows what one run or several learned.", "report.command:report"),
    "export": Command("Write a trained network as ONNX or for torch.export.", "export:export"),
    "sweep": Command("Train every combination of a sweep and compare them.", "sweeps.sweep:sweep"),
    "compare": Command("Compare runs over their seeds, in tables and charts.", "comparison.compare:compare"),
    "audit": Command("Look for near duplicates, wrong labels and odd images.", "audit.command:audit"),
    "data": Command("Show which data a folder holds, or download CIFAR-10.", "data.command:data"),
}
"""All commands. One with an option in its name takes its place where that option is given."""
NAMES = tuple(dict.fromkeys(name.split()[0] for name in COMMANDS))
HELP = f"""usage: cifar-lightning COMMAND [OPTIONS]

Train, evaluate and understand neural networks for CIFAR-10.

commands:
{chr(10).join(f"  {name:18}{command.help}" for name, command in COMMANDS.items())}

options:
  -h, --help        Show this text; after a command, its options.
  --allow MODULE    Allow a module of your own that a configuration names. May stand anywhere.
  --debug           Show errors with their traceback. May stand anywhere.

Start with `cifar-lightning fit --config configs/cnn.yaml --test`. `python -m cifar_lightning` is the same program."""
