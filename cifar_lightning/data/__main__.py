"""`python -m cifar_lightning.data`: says which data a root holds, and downloads them when asked."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from cifar_lightning.data.sources import NoDataError, default_root, find_source

__all__ = ["main"]


def main(args: list[str] | None = None) -> int:
    """Looks for CIFAR-10.

    Args:
        args: the command line without the program's name; default: that of the process.

    Returns:
        0 when the root holds data, 3 when it holds none, 2 when what it holds is broken.
    """
    parser = argparse.ArgumentParser(prog="python -m cifar_lightning.data", description=__doc__)
    parser.add_argument(
        "--root", type=Path, default=default_root(), help="data root; default $CIFAR10_ROOT, else data/"
    )
    parser.add_argument("--download", action="store_true", help="download the official archive when there are no data")
    options = parser.parse_args(args)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        source = find_source(options.root, options.download)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, NoDataError) else 2
    print(f"CIFAR-10 in {options.root.absolute()}: {source.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
