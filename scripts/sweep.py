"""Run a sweep, as `cifar-lightning sweep` does: `python scripts/sweep.py configs/sweeps/smoke.yaml --dry-run`."""

import sys

from cifar_lightning.main import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
