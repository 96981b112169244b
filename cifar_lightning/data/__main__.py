"""`python -m cifar_lightning.data`: reports which data a root holds, and downloads them on request."""

from __future__ import annotations

import logging
import sys

from cifar_lightning.data import command
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["main"]


def main(args: list[str] | None = None) -> int:
    """Run the command `data` as a program; returns the exit status."""
    parser = ArgumentParser(prog="python -m cifar_lightning.data", description=__doc__)
    command.add_arguments(parser)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        return command.run(parser.parse_args(args))
    except ValueError as error:  # in the command line
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
