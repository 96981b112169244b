"""Callbacks: they schedule and log; what they show is computed in `metrics` and `analysis`."""
