"""Measure speed: `python scripts/bench.py --help` lists the benchmarks."""

import sys

from benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main())
