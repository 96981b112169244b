"""Run `fit`, `validate`, `test` and `predict`."""

from __future__ import annotations

from cifar_lightning.cli.training import CifarCLI
from cifar_lightning.rendezvous import leave_group
from cifar_lightning.usage.items import given_options

__all__ = ["run_trainer"]


def run_trainer(args: list[str]) -> int:
    """Run `fit`, `validate`, `test` or `predict`.

    Args:
        args: the command line without the program's name.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: for options that are wrong, or do not fit each other, the data or the run.
    """
    items = list(given_options(args))
    runs = [item.value or "" for item in items if item.option == "--run"]
    if len(runs) > 1:
        command = next(item.value for item in items if not item.option)
        if command != "test":
            raise ValueError(f"Expected one `--run` for `{command}`, got {len(runs)}: {', '.join(runs)}.")
        from cifar_lightning.ensemble import ensemble

        return ensemble(runs, [arg for item in items if item.option not in ("", "--run") for arg in item.args])
    cli = CifarCLI(args)
    run = cli.run()
    if cli.tests and run is not None:
        CifarCLI(["test", f"--run={run}"]).run()
    leave_group()
    return 0
