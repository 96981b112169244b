"""`python -m cifar_lightning`: the same program as the console script `cifar-lightning`."""

from __future__ import annotations

import sys

from cifar_lightning.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
