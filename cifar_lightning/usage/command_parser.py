"""The parser of the commands that are not Lightning's: what is wrong with a line is one short message."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from cifar_lightning.usage.config_files import UsageError

__all__ = ["ArgumentParser"]


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, which raises errors and prints no usage."""

    given: Sequence[str] = ()
    knows_all = False

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses a line that holds nothing but the parser's own options."""
        self.knows_all = True
        return super().parse_args(args, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses what the parser knows of a line."""
        self.given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raises what is wrong.

        Raises:
            UsageError: always.
        """
        from cifar_lightning.usage.check_command import problems_of  # it imports torch, which a right line need not

        raise UsageError(problems_of(self) or f"{self.prog}: {message}.")
