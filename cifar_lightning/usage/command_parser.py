"""The parser of the commands without a Trainer: argparse, with mistakes as one short message."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from cifar_lightning.usage.config_files import UsageError

__all__ = ["ArgumentParser"]


class ArgumentParser(argparse.ArgumentParser):
    """A parser of argparse that raises errors instead of printing usage."""

    given: Sequence[str] = ()
    knows_all = False

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a line that holds only options of this parser."""
        self.knows_all = True
        return super().parse_args(args, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the options of a line that this parser knows."""
        self.given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise the mistakes in the line.

        Raises:
            UsageError: always.
        """
        from cifar_lightning.usage.check_command import problems_of  # imports torch: only for a line with mistakes

        raise UsageError(problems_of(self) or f"{self.prog}: {message}.")
