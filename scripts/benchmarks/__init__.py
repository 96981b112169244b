"""What `scripts/bench.py` measures: compared in turn, warmed up, synchronised."""
