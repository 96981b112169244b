"""The command `data`: reports which data a root holds, and downloads them on request."""

from __future__ import annotations

import argparse
import sys

from cifar_lightning.data.sources import NoDataError, default_root, find_source
from cifar_lightning.files import user_path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("--root", type=user_path, help="data root; default $CIFAR10_ROOT, else data/")
    parser.add_argument("--download", action="store_true", help="download the official archive if there are no data")


def run(options: argparse.Namespace) -> int:
    """Print what the data root holds.

    Returns:
        Exit status: 0 if the root holds data, 3 if it holds none, 2 if they are damaged.
    """
    try:
        root = options.root or default_root()
        source = find_source(root, options.download)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, NoDataError) else 2
    print(f"CIFAR-10 in {root.absolute()}: {source.name}")
    return 0
