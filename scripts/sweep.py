"""Runs a sweep and compares its runs: `python scripts/sweep.py configs/sweeps/smoke.yaml --dry-run`."""

import sys

from cifar_lightning.sweeps.sweep import sweep
from cifar_lightning.terminal import run_script

if __name__ == "__main__":
    sys.exit(run_script(sweep))
