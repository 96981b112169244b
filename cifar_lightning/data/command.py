"""`cifar-lightning data`: show which data a folder holds, or download CIFAR-10."""

from __future__ import annotations

import argparse
import sys

from cifar_lightning.data.sources import NoDataError, default_root, find_source
from cifar_lightning.files import user_path
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["data"]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = ArgumentParser(
        "cifar-lightning data", description="Show which data a folder holds. Exit status 3 when it holds none."
    )
    made.add_argument("--root", type=user_path, help="data root; default $CIFAR10_ROOT, else data/")
    made.add_argument("--download", action="store_true", help="download the official archive when there is no data")
    return made


def data(args: list[str]) -> int:
    """Print which data a root holds.

    Args:
        args: the command line after `data`.

    Returns:
        0 when the root holds data, 3 when it holds none.

    Raises:
        ValueError: when what it holds is damaged.
    """
    parsed = parser().parse_args(args)
    root = parsed.root or default_root()
    try:
        source = find_source(root, parsed.download)
    except NoDataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    print(f"CIFAR-10 in {root.absolute()}: {source.name}")
    return 0
