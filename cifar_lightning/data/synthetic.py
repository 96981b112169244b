"""The embedded stand-in for CIFAR-10: ten abstract motifs, rendered on demand, for places without the real data.

The classes are disc, ring, square, triangle, cross, star, crescent, stripes, checkerboard and dots. A class is a motif,
and nothing else tells the classes apart: position, size, rotation, hue and contrast polarity are drawn from the same
distributions for all of them, over random gradients, strokes, specks and noise. Colour statistics, linear models and
templates therefore fail, an MLP does poorly, and local, shift-tolerant features do well: the properties that separate
architectures on photographs separate them here. Accuracies on these images do not predict those on CIFAR-10.

Every motif is its own mirror image up to a rotation, so horizontal flips keep the label.

The pixels are the same on every machine and with any number of threads: the random bits are PCG64's raw output, which
NumPy keeps stable between versions, and the arithmetic is float32 with operations that IEEE 754 rounds exactly
(+, -, *, /, sqrt, floor, min, max). Hence no sin, no exp and no reductions in this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from cifar_lightning.data.split import ImageSet, SourceSplit, content_fingerprint

__all__ = ["MOTIFS", "render_images", "synthetic_images"]

MOTIFS = ("disc", "ring", "square", "triangle", "cross", "star", "crescent", "stripes", "checkerboard", "dots")
"""Motif of each label. Elsewhere, the labels keep the ten CIFAR-10 names."""

Array: TypeAlias = NDArray[np.float32]
Uniform: TypeAlias = Callable[..., Array]

MAX_IMAGES = 1_000_000  # of 3 kB each
SIZE = 32
CHUNK = 128  # images rendered at once: their planes fit the processor's cache
EIGHTH_TURN = math.sqrt(2) - 1  # tan(pi / 8)


def synthetic_images(split: SourceSplit, n: int, seed: int = 0) -> ImageSet:
    """Render the training or the test images of the synthetic data set.

    Args:
        split: "train" or "test"; they come from disjoint random streams of the same seed.
        n: number of images, at least 10.
        seed: seed of the data set, at least 0.

    Returns:
        The images and labels, see `render_images`.

    Raises:
        ValueError: if `split` is unknown, `n` is less than one image per class, or `seed` is negative.
    """
    if split not in get_args(SourceSplit):
        raise ValueError(f"Expected `split` to be 'train' or 'test', got {split!r}.")
    _check(n, seed, n_name=f"data.synthetic_{split}")
    return render_images(n, 2 * seed + (split == "test"))


def render_images(n: int, seed: int) -> ImageSet:
    """Render a balanced, shuffled set of images; equal arguments give equal bytes.

    Args:
        n: number of images, at least 10: `n // 10` of each class, and one more of the first `n % 10` classes.
        seed: seed of everything random, at least 0.

    Returns:
        Images uint8 (n, 3, 32, 32), RGB in [0, 255], and labels int64 (n,) in [0, 9], indices into `MOTIFS`.

    Raises:
        ValueError: if `n` is less than one image per class, or `seed` is negative.
    """
    _check(n, seed, n_name="n")
    bits = np.random.PCG64(seed)
    pixels = np.empty((n, 3, SIZE, SIZE), dtype=np.uint8)
    # A stable sort of raw bits is a shuffle that is the same in every version of NumPy.
    ranks = np.argsort(bits.random_raw(n), kind="stable").astype(np.int64)
    classes = ranks % len(MOTIFS)
    for label in range(len(MOTIFS)):
        members = np.flatnonzero(classes == label)
        for start in range(0, len(members), CHUNK):
            chunk = members[start : start + CHUNK]
            pixels[chunk] = _render(label, len(chunk), bits)
    images, labels = torch.from_numpy(pixels), torch.from_numpy(classes)
    return ImageSet(images, labels, content_fingerprint(images, labels))


def _check(n: int, seed: int, n_name: str) -> None:
    """Raise one `ValueError` with all problems of the size and the seed."""
    problems = []
    if n < len(MOTIFS):
        problems.append(f"Expected `{n_name}` to be at least {len(MOTIFS)}, one image per class, got {n}.")
    if n > MAX_IMAGES:
        problems.append(f"Expected `{n_name}` to be at most {MAX_IMAGES:,} images, which are kept in memory, got {n}.")
    if seed < 0:
        problems.append(f"Expected `seed` to be at least 0, got {seed}.")
    if problems:
        raise ValueError("\n".join(problems))


def _render(label: int, n: int, bits: np.random.PCG64) -> NDArray[np.uint8]:
    """Render `n` images of one class: uint8 (n, 3, 32, 32)."""

    def uniform(low: float, high: float, *shape: int) -> Array:
        """Return float32 draws in [low, high), shape (n, *shape), or (n, 1, 1) to broadcast over the pixels."""
        shape = (n, *(shape or (1, 1)))
        unit = (bits.random_raw(math.prod(shape)) >> 40).astype(np.float32) * np.float32(2**-24)
        return np.float32(low) + np.float32(high - low) * unit.reshape(shape)

    mask = _motif(label, uniform)
    backdrop = _gradient(uniform) * (1 - 0.6 * mask)  # a little of the lighting continues over the motif,
    clutter = _clutter(uniform) * (1 - mask)  # while strokes and specks pass behind it.

    # Light on dark as often as dark on light; the base leaves room for the contrast, so that clipping is rare.
    polarity = _sign(uniform(-1, 1, 1))
    contrast = uniform(0.3, 0.55, 1)
    base = 0.5 - polarity * contrast / 2 + uniform(-0.14, 0.14, 1)
    ground = base + _tint(uniform, 0.25)
    figure = polarity * contrast + _tint(uniform, 0.25)
    light = uniform(-0.15, 0.15, 1) + _tint(uniform, 0.12)
    debris = uniform(-0.22, 0.22, 1) + _tint(uniform, 0.15)

    noise_bytes = bits.random_raw(n * 3 * SIZE * SIZE // 8).astype("<u8").view(np.uint8)
    pixels = noise_bytes.reshape(n, 3, SIZE, SIZE).astype(np.float32)
    pixels -= np.float32(127.5)
    pixels *= uniform(0.02, 0.2, 1, 1, 1)
    for colour, plane in ((figure, mask), (light, backdrop), (debris, clutter)):
        pixels += (255 * colour)[:, :, None, None] * plane[:, None]
    pixels += (255 * ground)[:, :, None, None]
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def _sign(x: Array) -> Array:
    """Return -1 where x is negative, else 1."""
    return np.where(x < 0, np.float32(-1), np.float32(1))


def _tint(uniform: Uniform, strength: float) -> Array:
    """Return random chroma of zero mean over the channels: (n, 3), in [-2/3, 2/3] times up to `strength`."""
    hue = uniform(0, 6, 1)
    # The piecewise linear hue wheel: 0 red, 2 green, 4 blue.
    away = np.abs(hue - np.array([0, 2, 4], dtype=np.float32))
    rgb = np.clip(2 - np.minimum(away, 6 - away), 0, 1)
    mean = (rgb[:, :1] + rgb[:, 1:2] + rgb[:, 2:]) / 3
    return (rgb - mean) * uniform(0.3, 1, 1) * np.float32(2 * strength)


def _coordinates() -> tuple[Array, Array]:
    """Return column and row of each pixel, shapes (1, 1, 32) and (1, 32, 1)."""
    line = np.arange(SIZE, dtype=np.float32)
    return line[None, None, :], line[None, :, None]


def _direction(uniform: Uniform) -> tuple[Array, Array]:
    """Return unit vectors over the whole circle, x and y of shape (n, 1, 1), uniform to within a sixth."""
    # The rational parametrisation of an eighth turn to either side, then a random quarter turn: no sin, no cos.
    t = uniform(-EIGHTH_TURN, EIGHTH_TURN)
    x, y = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    swap, sign = uniform(-1, 1) < 0, _sign(uniform(-1, 1))
    return sign * np.where(swap, -y, x), sign * np.where(swap, x, y)


def _coverage(distance_px: Array) -> Array:
    """Return the share of each pixel inside a shape, in [0, 1], from the distance to its edge (negative inside)."""
    return np.clip(0.5 - distance_px, 0, 1)


def _gradient(uniform: Uniform) -> Array:
    """Return smooth random lighting in [-1, 1]: a 4x4 grid of values, interpolated bilinearly to (n, 32, 32)."""
    grid = uniform(-1, 1, 4, 4)
    at = np.arange(SIZE, dtype=np.float32) * np.float32(3 / SIZE)
    cell = at.astype(np.int64)
    part = at - cell.astype(np.float32)
    rows = grid[:, cell] * (1 - part)[:, None] + grid[:, cell + 1] * part[:, None]
    return rows[:, :, cell] * (1 - part) + rows[:, :, cell + 1] * part


def _clutter(uniform: Uniform) -> Array:
    """Return two strokes across the image and two specks, each positive or negative: (n, 32, 32) in [-1, 1]."""
    x, y = _coordinates()
    total = np.zeros((1, SIZE, SIZE), dtype=np.float32)
    for _ in range(2):
        dx, dy = _direction(uniform)
        offset = dx * uniform(4, 28) + dy * uniform(4, 28)
        stroke = np.abs(dx * x + dy * y - offset) - uniform(0.5, 1.5)
        total = total + _sign(uniform(-1, 1)) * _coverage(stroke)
    for _ in range(2):
        dx, dy = x - uniform(0, 31), y - uniform(0, 31)
        speck = np.sqrt(dx * dx + dy * dy) - uniform(1, 2.5)
        total = total + _sign(uniform(-1, 1)) * _coverage(speck)
    return np.clip(total, -1, 1)


def _motif(label: int, uniform: Uniform) -> Array:
    """Return the coverage by the motif of a class at a random place, size and rotation: (n, 32, 32) in [0, 1]."""
    radius = uniform(7, 11)
    x, y = _coordinates()
    margin = 0.9 * radius
    dx, dy = (axis - (margin + uniform(0, 1) * (31 - 2 * margin)) for axis in (x, y))
    cos, sin = _direction(uniform)
    cos, sin = cos / radius, sin / radius
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    return _coverage(_DISTANCES[label](u, v) * radius)


def _disc(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v) - np.float32(0.9)


def _ring(u: Array, v: Array) -> Array:
    return np.abs(np.sqrt(u * u + v * v) - np.float32(0.78)) - np.float32(0.2)


def _square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.8)


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(np.float32(math.sqrt(3) / 2) * np.abs(u) - v / 2, v) - np.float32(0.55)


def _cross(u: Array, v: Array) -> Array:
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(u, v) - 1, np.minimum(u, v) - np.float32(0.28))


def _star(u: Array, v: Array) -> Array:
    # A pentagram is where at least four of five half-planes meet: the second largest distance is its edge.
    largest = second = np.full_like(u, -np.inf)
    for fifth in range(5):
        angle = 2 * math.pi * fifth / 5
        edge = np.float32(round(math.sin(angle), 6)) * u + np.float32(round(math.cos(angle), 6)) * v
        second = np.maximum(second, np.minimum(largest, edge))
        largest = np.maximum(largest, edge)
    return second - np.float32(0.38)


def _crescent(u: Array, v: Array) -> Array:
    shifted = v - np.float32(0.5)
    return np.maximum(np.sqrt(u * u + v * v) - 1, np.float32(0.8) - np.sqrt(u * u + shifted * shifted))


def _wave(x: Array, period: float) -> Array:
    """Return a triangle wave of slope 1: -period / 4 at the multiples of the period, period / 4 half-way between."""
    phase = x / np.float32(period)
    return np.abs(phase - np.floor(phase + np.float32(0.5))) * np.float32(period) - np.float32(period / 4)


def _stripes(u: Array, v: Array) -> Array:
    return np.maximum(np.maximum(np.abs(u), np.abs(v)) - np.float32(0.95), _wave(u, 0.63))


def _checkerboard(u: Array, v: Array) -> Array:
    # Four by four fields: a quarter period aside, the wave changes sign at the centre and at the outline.
    a, b = _wave(u + np.float32(0.225), 0.9), _wave(v + np.float32(0.225), 0.9)
    fields = np.maximum(np.minimum(a, b), -np.maximum(a, b))
    return np.maximum(np.maximum(np.abs(u), np.abs(v)) - np.float32(0.9), fields)


def _dots(u: Array, v: Array) -> Array:
    a, b = (x - np.float32(0.66) * np.clip(np.floor(x / np.float32(0.66) + np.float32(0.5)), -1, 1) for x in (u, v))
    return np.sqrt(a * a + b * b) - np.float32(0.22)


_DISTANCES: tuple[Callable[[Array, Array], Array], ...] = (
    _disc,
    _ring,
    _square,
    _triangle,
    _cross,
    _star,
    _crescent,
    _stripes,
    _checkerboard,
    _dots,
)
"""Signed distance of each motif, negative inside, in units of its radius, as are the coordinates about its centre."""
