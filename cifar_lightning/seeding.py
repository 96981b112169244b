"""Seeds derived from names and counters, so that randomness needs no state to be saved and none to be restored."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["derive_seed", "generator"]


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that depends on every part, such as ("shuffle", seed, epoch).

    A hash rather than a sum: (seed 1, epoch 0) and (seed 0, epoch 1) must not share a stream.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed`; the same on every machine and device."""
    return torch.Generator().manual_seed(derive_seed(*parts))
