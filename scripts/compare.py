"""Compares runs over seeds: `python scripts/compare.py lightning_logs/mlp lightning_logs/cnn`."""

import sys

from cifar_lightning.comparison.compare import compare
from cifar_lightning.terminal import run_script

if __name__ == "__main__":
    sys.exit(run_script(compare))
