"""Compare runs, as `cifar-lightning compare`: `python scripts/compare.py lightning_logs/mlp lightning_logs/cnn`."""

import sys

from cifar_lightning.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
