"""`python -m cifar_lightning`, and the console script `cifar-lightning`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(args: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        args: the command line without the program's name; default: that of the process.

    Returns:
        The exit status: 0, or 2 for a user's error, which is shown as one message (with `--debug`, as a traceback).
    """
    from cifar_lightning.terminal import run_command

    return run_command(sys.argv[1:] if args is None else args)


if __name__ == "__main__":
    sys.exit(main())
