"""`python -m cifar_lightning.data`: says which data a root holds, and downloads them when asked."""

from __future__ import annotations

import logging
import sys

from cifar_lightning.data.sources import NoDataError, default_root, find_source
from cifar_lightning.files import user_path
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["main"]


def main(args: list[str] | None = None) -> int:
    """Looks for CIFAR-10.

    Args:
        args: the command line without the program's name; default: that of the process.

    Returns:
        0 when the root holds data, 3 when it holds none, 2 when what it holds is broken.
    """
    parser = ArgumentParser(prog="python -m cifar_lightning.data", description=__doc__)
    parser.add_argument("--root", type=user_path, help="data root; default $CIFAR10_ROOT, else data/")
    parser.add_argument("--download", action="store_true", help="download the official archive when there are no data")
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        options = parser.parse_args(args)
        root = options.root or default_root()
        source = find_source(root, options.download)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, NoDataError) else 2
    print(f"CIFAR-10 in {root.absolute()}: {source.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
