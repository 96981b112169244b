from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar_lightning.data.augment import (
    MEAN_COLOUR,
    Augmentation,
    StandardAugmentation,
    apply_draws,
    cutout,
    draw_epoch,
    flip_translate,
    resize,
    retone,
    warp,
)
from cifar_lightning.models.classifier import CIFAR10_MEAN


def random_images(n: int, channels: int = 3, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


def moved_pixel_by_pixel(image: np.ndarray, flip: bool, down: int, right: int) -> np.ndarray:
    """Pad, shift and then mirror one image (C, H, W)."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (abs(down), abs(down)), (abs(right), abs(right))), mode="reflect")
    moved, out = np.empty_like(image), np.empty_like(image)
    for row in range(height):
        for col in range(width):
            moved[:, row, col] = padded[:, row - down + abs(down), col - right + abs(right)]
    for col in range(width):
        out[:, :, col] = moved[:, :, width - 1 - col if flip else col]
    return out


def cut_pixel_by_pixel(image: np.ndarray, row: int, col: int, side: int) -> np.ndarray:
    """Paint the square about (row, col) of one image (3, H, W); an even side reaches one pixel further up and left."""
    out = image.copy()
    for i in range(row - side // 2, row - side // 2 + side):
        for j in range(col - side // 2, col - side // 2 + side):
            if 0 <= i < image.shape[1] and 0 <= j < image.shape[2]:
                out[:, i, j] = MEAN_COLOUR
    return out


@given(
    n=st.integers(1, 4),
    channels=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    flips=st.booleans(),
    shifts=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_flip_translate_equals_a_loop_over_pixels(n, channels, height, width, flips, shifts, seed):
    images = random_images(n, channels, height, width, seed)
    before = images.clone()
    rng = np.random.default_rng(seed)
    flip = rng.random(n) < 0.5
    shift = np.stack([rng.integers(1 - height, height, n), rng.integers(1 - width, width, n)], 1)
    out = flip_translate(images, torch.from_numpy(flip) if flips else None, torch.from_numpy(shift) if shifts else None)
    expected = [
        moved_pixel_by_pixel(image, bool(f) and flips, *(move if shifts else (0, 0)))
        for image, f, move in zip(images.numpy(), flip, shift.tolist(), strict=True)
    ]
    assert out.dtype == torch.uint8
    np.testing.assert_array_equal(out.numpy(), np.stack(expected))
    assert torch.equal(images, before)


@given(
    n=st.integers(1, 4), height=st.integers(1, 9), width=st.integers(1, 9), side=st.integers(0, 9), seed=st.integers(0)
)
def test_cutout_equals_a_loop_over_pixels(n, height, width, side, seed):
    images = random_images(n, 3, height, width, seed % 1000)
    before = images.clone()
    rng = np.random.default_rng(seed)
    centre = np.stack([rng.integers(0, height, n), rng.integers(0, width, n)], 1)
    out = cutout(images, torch.from_numpy(centre), side)
    expected = [cut_pixel_by_pixel(image, *at, side) for image, at in zip(images.numpy(), centre.tolist(), strict=True)]
    np.testing.assert_array_equal(out.numpy(), np.stack(expected))
    assert torch.equal(images, before)


def warped_pixel_by_pixel(image: np.ndarray, degrees: float, zoom: float) -> np.ndarray:
    """Rotate one image (C, S, S) counterclockwise and enlarge it, with a loop over the new pixels."""
    side = image.shape[1]
    out, middle, angle = np.empty(image.shape), (side - 1) / 2, np.deg2rad(degrees)

    def reflected(place: float) -> float:
        """Return the place, mirrored at the outer edges of the first and the last pixel."""
        place = (place + 0.5) % (2 * side)
        return min(place, 2 * side - place) - 0.5

    for row in range(side):
        for col in range(side):
            up, right = middle - row, col - middle
            # Where the new pixel comes from: rotated clockwise, and nearer to the centre if enlarged.
            old_right = (right * np.cos(angle) + up * np.sin(angle)) / zoom
            old_up = (up * np.cos(angle) - right * np.sin(angle)) / zoom
            y, x = reflected(middle - old_up), reflected(middle + old_right)
            y, x = min(max(y, 0), side - 1), min(max(x, 0), side - 1)
            top, left = min(int(y), side - 2), min(int(x), side - 2)
            y, x = y - top, x - left
            corners = image[:, top : top + 2, left : left + 2].astype(float)
            out[:, row, col] = np.einsum("cij,i,j->c", corners, [1 - y, y], [1 - x, x])
    return out


@given(side=st.integers(2, 9), degrees=st.floats(-180, 180), zoom=st.floats(0.5, 2), seed=st.integers(0, 1000))
def test_warp_equals_a_loop_over_pixels(side, degrees, zoom, seed):
    images = random_images(2, 3, side, side, seed)
    before = images.clone()
    out = warp(images, torch.tensor([degrees, -degrees / 2]), torch.tensor([zoom, 1.0]))
    assert out.dtype == torch.uint8
    for image, moved, (angle, factor) in zip(
        images.numpy(), out.numpy(), ((degrees, zoom), (-degrees / 2, 1.0)), strict=True
    ):
        assert np.abs(moved - warped_pixel_by_pixel(image, angle, factor)).max() <= 0.6  # rounding
    assert torch.equal(images, before)


def test_warp_rotates_counterclockwise_and_enlarges():
    images = random_images(3)
    angle, size = torch.tensor([0.0, 90.0, 180.0]), torch.ones(3)
    out = warp(images, angle, size)
    for turns in range(3):
        assert torch.equal(out[turns], images[turns].rot90(turns, (1, 2)))
    dot = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    dot[:, :, 14:18, 14:18] = 255
    grown = warp(dot, torch.zeros(1), torch.full((1,), 2.0))
    assert (grown[0, 0] > 127).sum() == 8 * 8


def test_angles_and_zooms_cover_their_ranges_evenly():
    drawn = StandardAugmentation(rotate_degrees=20, zoom_percent=25).draw(
        torch.arange(20_000), torch.Generator().manual_seed(0)
    )["warp"]
    for values in (drawn[:, 0] / 20, drawn[:, 1].log() / np.log(1.25)):
        counts = torch.histc(values, 10, -1, 1)
        assert counts.sum() == 20_000  # none outside
        assert (counts / 20_000 - 0.1).abs().max() < 0.01
    assert abs(torch.corrcoef(drawn.T.double())[0, 1]) < 0.03
    only_turned = StandardAugmentation(rotate_degrees=20).draw(torch.arange(100), torch.Generator().manual_seed(0))[
        "warp"
    ]
    assert torch.equal(only_turned[:, 1], torch.ones(100))


@pytest.mark.parametrize(
    "augmentation",
    [StandardAugmentation(True, 2, 8), StandardAugmentation(False, 31, 0), StandardAugmentation(True, 0, 32)],
)
def test_draws_of_an_epoch_equal_the_loops_over_pixels(augmentation):
    images = random_images(24)
    before = images.clone()
    draws = augmentation.draw(torch.arange(len(images)), torch.Generator().manual_seed(1))
    out = augmentation.apply(images, draws)
    for i, image in enumerate(images.numpy()):
        down, right = draws["shift"][i].tolist() if "shift" in draws else (0, 0)
        expected = moved_pixel_by_pixel(image, "flip" in draws and bool(draws["flip"][i]), down, right)
        if "hole" in draws:
            expected = cut_pixel_by_pixel(expected, *draws["hole"][i].tolist(), augmentation.cutout_px)
        np.testing.assert_array_equal(out[i].numpy(), expected)
    assert torch.equal(images, before)


def test_tones_equal_the_formula_in_double_precision():
    """First brightness is added, then the distance from the mean colour is multiplied."""
    images = random_images(6)
    before = images.clone()
    brightness, contrast = torch.linspace(-60, 60, 6), torch.linspace(0.5, 1.5, 6)
    mean = np.array(MEAN_COLOUR, dtype=np.float64)[:, None, None]
    found = retone(images, brightness, contrast)
    assert found.dtype == torch.uint8
    for image, changed, levels, factor in zip(images.numpy(), found.numpy(), brightness, contrast, strict=True):
        expected = np.clip(mean + (image + float(levels) - mean) * float(factor), 0, 255)
        assert np.abs(changed - expected).max() <= 0.501  # rounding
    assert torch.equal(images, before)


def test_tones_cover_their_ranges_evenly():
    augmentation = StandardAugmentation(brightness_percent=10, contrast_percent=20)
    drawn = augmentation.draw(torch.arange(20_000), torch.Generator().manual_seed(0))["tone"]
    for values in (drawn[:, 0] / 25.5, (drawn[:, 1] - 1) / 0.2):
        counts = torch.histc(values, 10, -1, 1)
        assert counts.sum() == 20_000  # none outside
        assert (counts / 20_000 - 0.1).abs().max() < 0.01
    assert abs(torch.corrcoef(drawn.T.double())[0, 1]) < 0.03
    images = random_images(100)
    tone = {"tone": drawn[:100]}
    assert torch.equal(augmentation.apply(images, tone), retone(images, drawn[:100, 0], drawn[:100, 1]))


def test_each_image_has_its_own_draws():
    images = random_images(1).expand(64, -1, -1, -1)
    for augmentation, least in (
        (StandardAugmentation(flip=True), 2),
        (StandardAugmentation(translate_px=4), 40),
        (StandardAugmentation(cutout_px=8), 55),
        (StandardAugmentation(rotate_degrees=10), 60),
        (StandardAugmentation(zoom_percent=10), 60),
        (StandardAugmentation(brightness_percent=10), 30),
        (StandardAugmentation(contrast_percent=20), 60),
    ):
        out = augmentation.apply(images, augmentation.draw(torch.arange(64), torch.Generator().manual_seed(0)))
        assert len(out.flatten(1).unique(dim=0)) >= least


def test_everything_off_is_the_identity():
    images = random_images(8)
    assert StandardAugmentation().draw(torch.arange(8), torch.Generator()) == {}
    assert torch.equal(StandardAugmentation().apply(images, {}), images)
    assert torch.equal(flip_translate(images, None, None), images)
    assert torch.equal(cutout(images, torch.full((8, 2), 16), 0), images)
    assert torch.equal(
        flip_translate(images, torch.zeros(8, dtype=torch.bool), torch.zeros(8, 2, dtype=torch.long)), images
    )


def test_half_of_the_images_are_mirrored():
    draws = StandardAugmentation(flip=True).draw(torch.arange(20_000), torch.Generator().manual_seed(0))
    assert abs(draws["flip"].double().mean() - 0.5) < 0.015  # four standard deviations


def test_shifts_cover_their_range_evenly_in_both_directions():
    shift = StandardAugmentation(translate_px=3).draw(torch.arange(20_000), torch.Generator().manual_seed(0))["shift"]
    for axis in (0, 1):
        values, counts = shift[:, axis].unique(return_counts=True)
        assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert (counts / 20_000 - 1 / 7).abs().max() < 0.01
    assert abs(torch.corrcoef(shift.T.double())[0, 1]) < 0.03


def test_holes_are_centred_anywhere():
    hole = StandardAugmentation(cutout_px=8).draw(torch.arange(20_000), torch.Generator().manual_seed(0))["hole"]
    for axis in (0, 1):
        values, counts = hole[:, axis].unique(return_counts=True)
        assert values.tolist() == list(range(32))
        assert (counts / 20_000 - 1 / 32).abs().max() < 0.006


@pytest.mark.parametrize(
    ("row", "col", "rows", "cols"), [(0, 0, (0, 4), (0, 4)), (31, 31, (27, 32), (27, 32)), (10, 31, (6, 14), (27, 32))]
)
def test_a_hole_is_clipped_at_the_border(row, col, rows, cols):
    out = cutout(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8), torch.tensor([[row, col]]), 8)
    painted = (out[0] != 255).all(0)
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[slice(*rows), slice(*cols)] = True
    assert torch.equal(painted, expected)
    assert out[0, :, row, col].tolist() == list(MEAN_COLOUR)


def test_the_fill_is_zero_after_normalisation():
    assert tuple(round(255 * mean) for mean in CIFAR10_MEAN) == MEAN_COLOUR


def test_rows_of_draws_belong_to_their_images():
    images, augmentations = random_images(10), [StandardAugmentation(True, 3, 5, 20.0, 10.0), Noise()]
    draws = draw_epoch(augmentations, torch.arange(10), 2, 0)
    whole = apply_draws(images, augmentations, draws, slice(0, 10))
    assert (whole != images).flatten(1).any(1).all()
    assert torch.equal(apply_draws(images[3:7], augmentations, draws, slice(3, 7)), whole[3:7])


class Noise(Augmentation):
    """Noise on some images, with parameters in a tuple."""

    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def draw(self, indices: torch.Tensor, rng: torch.Generator, epoch: int) -> tuple[torch.Tensor, ...]:
        noise = torch.randint(0, 256, (len(indices), 3, 32, 32), dtype=torch.uint8, generator=rng)
        return torch.rand(len(indices), generator=rng) < self.share, noise

    def apply(self, images: torch.Tensor, drawn: tuple[torch.Tensor, ...]) -> torch.Tensor:
        chosen, noise = drawn
        return images + noise * chosen[:, None, None, None]


def test_another_augmentation_changes_no_draw():
    standard, indices = StandardAugmentation(True, 3, 5, 20.0, 10.0), torch.arange(50).flip(0)
    (alone,) = draw_epoch([standard], indices, 4, 1)
    (noise,) = draw_epoch([Noise()], indices, 4, 1)
    for augmentations in ([standard, Noise(), Noise()], [Noise(), standard, Noise()], [Noise(), Noise(), standard]):
        draws = draw_epoch(augmentations, indices, 4, 1)
        beside = draws.pop(augmentations.index(standard))
        assert beside.keys() == alone.keys() == {"flip", "shift", "hole", "warp"}
        assert all(torch.equal(beside[name], alone[name]) for name in alone)
        assert torch.equal(draws[0][1], noise[1])
        assert not torch.equal(draws[0][1], draws[1][1])  # two of one class


def test_draws_change_with_the_epoch_and_the_seed():
    drawn = [draw_epoch([Noise()], torch.arange(5), seed, epoch)[0][1] for seed in (0, 1) for epoch in (0, 1)]
    assert len({noise.numpy().tobytes() for noise in drawn}) == 4
    assert torch.equal(draw_epoch([Noise()], torch.arange(5), 1, 1)[0][1], drawn[3])


def test_draws_without_a_row_for_each_image():
    class Short(Noise):
        def draw(self, indices, rng, epoch):
            return super().draw(indices[1:], rng, epoch)

    with pytest.raises(
        ValueError, match=r"one row for each of the 5 images, got the shapes \(4,\), \(4, 3, 32, 32\)\."
    ):
        draw_epoch([Short()], torch.arange(5), 0, 0)


def test_an_augmentation_without_apply():
    class Half(Augmentation):
        def draw(self, indices, rng, epoch):
            return None

    with pytest.raises(TypeError, match="apply"):
        Half()


@pytest.mark.parametrize(
    ("augmentation", "messages"),
    [
        (StandardAugmentation(True, 31, 32), []),
        (StandardAugmentation(True, 0, 0), []),
        (StandardAugmentation(translate_px=-1), ["Expected `data.translate_px` in [0, 31] pixels, got -1."]),
        (StandardAugmentation(translate_px=32), ["Expected `data.translate_px` in [0, 31] pixels, got 32."]),
        (StandardAugmentation(cutout_px=-1), ["Expected `data.cutout_px` in [0, 32] pixels, got -1."]),
        (
            StandardAugmentation(translate_px=40, cutout_px=33, rotate_degrees=-1.0, zoom_percent=101.0),
            [
                "Expected `data.translate_px` in [0, 31] pixels, got 40.",
                "Expected `data.cutout_px` in [0, 32] pixels, got 33.",
                "Expected `data.rotate_degrees` in [0, 180] degrees, got -1.0.",
                "Expected `data.zoom_percent` in [0, 100] percent, got 101.0.",
            ],
        ),
        (
            StandardAugmentation(brightness_percent=-0.5, contrast_percent=101.0),
            [
                "Expected `data.brightness_percent` in [0, 100] percent, got -0.5.",
                "Expected `data.contrast_percent` in [0, 100] percent, got 101.0.",
            ],
        ),
        (StandardAugmentation(brightness_percent=100.0, contrast_percent=100.0), []),
    ],
)
def test_problems(augmentation, messages):
    assert augmentation.problems() == messages


def test_alternating_flips_show_each_side_in_two_epochs():
    augmentation = StandardAugmentation(flip="alternating", translate_px=2)
    draws = [augmentation.draw_epoch(torch.arange(2000), seed, epoch) for seed in (0, 1) for epoch in range(3)]
    for first, second, third in (draws[:3], draws[3:]):
        assert torch.equal(first["flip"], ~second["flip"])
        assert torch.equal(first["flip"], third["flip"])
        assert abs(first["flip"].double().mean() - 0.5) < 0.05
        assert not torch.equal(first["shift"], third["shift"])
    assert not torch.equal(draws[0]["flip"], draws[3]["flip"])


def test_random_flips_are_drawn_anew_each_epoch():
    augmentation = StandardAugmentation(flip=True)
    first, second = (augmentation.draw_epoch(torch.arange(2000), 0, epoch)["flip"] for epoch in (0, 1))
    assert 800 < (first ^ second).sum() < 1200


def test_resizing_averages_the_pixels_nearest_to_a_new_one():
    images = random_images(3)
    small = resize(images, 24)
    assert small.dtype == torch.uint8
    # Of four pixels in a row three are made, in both directions.
    weights = torch.tensor([[5, 1, 0, 0], [0, 3, 3, 0], [0, 0, 1, 5]]).double() / 6
    windows = images.double().unfold(2, 4, 4).unfold(3, 4, 4)
    expected = torch.einsum("nchwij,yi,xj->nchywx", windows, weights, weights).reshape(3, 3, 24, 24)
    assert (small.double() - expected).abs().max() <= 0.51
    assert resize(images, 32) is images
    assert torch.equal(resize(torch.full((1, 3, 32, 32), 7, dtype=torch.uint8), 20), torch.full((1, 3, 20, 20), 7))
