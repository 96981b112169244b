"""Corruptions against scipy, Pillow and colorsys, or by their statistics where they are random."""

from __future__ import annotations

import colorsys
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from test_ddp import TWO, command
from tiny import MLP

from cifar_lightning.__main__ import main
from cifar_lightning.data import corruptions
from cifar_lightning.data.corrupted import CorruptedImages
from cifar_lightning.data.corruptions import CHUNK, CORRUPTIONS, SEVERITIES, corrupt
from cifar_lightning.data.image_filters import SIDE
from cifar_lightning.data.split import ImageSet, stratified_indices
from cifar_lightning.data.synthetic import synthetic_images
from cifar_lightning.runs import Run
from cifar_lightning.trained import load_trained

IMAGES = synthetic_images("test", 20).images
RANDOM = {
    *("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "fog"),
    "elastic_transform",
}


def hwc(image: torch.Tensor) -> np.ndarray:
    """A uint8 image as float64 (32, 32, 3) in [0, 1]."""
    return image.permute(1, 2, 0).double().numpy() / 255


def assert_equal_within_a_level(name: str, severity: int, second) -> None:
    found = corrupt(IMAGES, name, severity)
    for image, ours in zip(IMAGES, found, strict=True):
        theirs = np.clip(second(hwc(image)), 0, 1) * 255
        assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() <= 1.01


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness(severity):
    more = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]

    def second(x: np.ndarray) -> np.ndarray:
        def brighter(rgb: np.ndarray) -> tuple[float, float, float]:
            h, s, v = colorsys.rgb_to_hsv(*rgb)
            return colorsys.hsv_to_rgb(h, s, min(1.0, v + more))

        return np.apply_along_axis(brighter, 2, x)

    assert_equal_within_a_level("brightness", severity, second)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast(severity):
    kept = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    assert_equal_within_a_level(
        "contrast", severity, lambda x: (x - x.mean((0, 1), keepdims=True)) * kept + x.mean((0, 1), keepdims=True)
    )


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_blur(severity):
    radius, soft = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    y, x = np.mgrid[-8:9, -8:9]
    disk = (x**2 + y**2 <= radius**2).astype(float)
    edge = np.exp(-np.array([1, 0, 1]) / (2 * soft**2))
    edge /= edge.sum()
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(edge, edge), mode="constant")
    assert_equal_within_a_level(
        "defocus_blur", severity, lambda x: ndimage.correlate(x, kernel[:, :, None], mode="mirror")
    )


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur(severity):
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)

    def enlarged(x: np.ndarray, factor: float) -> np.ndarray:
        kept = math.ceil(SIDE / factor)
        first = (SIDE - kept) // 2
        whole = ndimage.zoom(x[first : first + kept, first : first + kept], (factor, factor, 1), order=1)
        first = (whole.shape[0] - SIDE) // 2
        return whole[first : first + SIDE, first : first + SIDE]

    assert_equal_within_a_level(
        "zoom_blur", severity, lambda x: (x + sum(enlarged(x, f) for f in factors)) / (len(factors) + 1)
    )


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate(severity):
    size = int(SIDE * (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1])

    def second(x: np.ndarray) -> np.ndarray:
        image = Image.fromarray((x * 255).round().astype(np.uint8))
        return np.asarray(image.resize((size, size), Image.BOX).resize((SIDE, SIDE), Image.BOX)) / 255

    assert_equal_within_a_level("pixelate", severity, second)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg(severity):
    def second(x: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        image = Image.fromarray((x * 255).round().astype(np.uint8))
        image.save(file, "JPEG", quality=(80, 65, 58, 50, 40)[severity - 1])
        return np.asarray(Image.open(file)) / 255

    assert_equal_within_a_level("jpeg_compression", severity, second)


@pytest.mark.parametrize(("sigma", "truncate", "symmetric"), [(0.05, 4, False), (0.4, 4, False), (6.4, 3, True)])
def test_blurs_are_those_of_scipy(sigma, truncate, symmetric):
    x = torch.rand(SIDE, SIDE)
    found = corruptions.both_ways(corruptions.gaussian_matrix(sigma, truncate, symmetric), x)
    mode = "reflect" if symmetric else "nearest"
    np.testing.assert_allclose(
        found, ndimage.gaussian_filter(x.numpy(), sigma, mode=mode, truncate=truncate), atol=1e-5
    )


@pytest.mark.parametrize("about_centres", [True, False])
def test_places_between_and_beyond_pixels_are_those_of_scipy(about_centres):
    x = torch.rand(1, 3, SIDE, SIDE)
    columns, rows = torch.rand(2, 1, SIDE, SIDE) * 50 - 9
    found = corruptions.sample(x, columns, rows, about_centres)[0]
    mode = "mirror" if about_centres else "reflect"
    for ours, channel in zip(found, x[0], strict=True):
        theirs = ndimage.map_coordinates(channel.numpy(), [rows[0], columns[0]], order=1, mode=mode)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("angle", [-135.0, -90.0, -30.0, 0.0, 45.0])
def test_motion_is_a_sum_of_shifted_images(angle):
    radius, sigma, x = 4, 2.0, torch.rand(1, 1, SIDE, SIDE)
    expected, total = np.zeros((SIDE, SIDE)), 0.0
    for i in range(2 * radius + 1):
        weight = math.exp(-(i**2) / (2 * sigma**2))
        down, right = (math.ceil(i * f(math.radians(angle)) - 0.5) for f in (math.sin, math.cos))
        padded = np.pad(x[0, 0].numpy(), 20, mode="edge")
        expected += weight * padded[20 + down : 20 + down + SIDE, 20 + right : 20 + right + SIDE]
        total += weight
    found = corruptions.blur_along(x, radius, sigma, torch.tensor([angle]))[0, 0]
    np.testing.assert_allclose(found, expected / total, atol=0.6 / 255)


@pytest.mark.parametrize("severity", [1, 5])
def test_noise_has_the_published_size(severity):
    grey = torch.full((200, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    values = corrupt(grey, "gaussian_noise", severity).double() / 255
    assert values.std() == pytest.approx((0.04, 0.1)[severity == 5], rel=0.02)
    photons = (500, 50)[severity == 5]
    values = corrupt(grey, "shot_noise", severity).double() / 255
    assert values.std() == pytest.approx(math.sqrt(128 / 255 / photons), rel=0.02)
    assert values.mean() == pytest.approx(128 / 255 - 0.5 / 255, abs=0.002)  # rounded down
    values = corrupt(grey, "impulse_noise", severity)
    share = (0.01, 0.07)[severity == 5]
    for value in (0, 255):
        assert (values == value).double().mean() == pytest.approx(share / 2, rel=0.05)
    assert set(values.unique().tolist()) == {0, 128, 255}


def test_glass_takes_each_pixel_from_above_or_from_the_left():
    rows = torch.arange(SIDE, dtype=torch.uint8)
    place = torch.stack((rows[:, None].expand(SIDE, SIDE), rows.expand(SIDE, SIDE), torch.zeros(SIDE, SIDE).byte()))
    (found,) = corrupt(place[None], "glass_blur", 1)  # its blur is too narrow to change anything
    up, left = (place - found)[:2].long()
    assert set(up.unique().tolist()) == set(left.unique().tolist()) == {0, 1}
    assert torch.equal(found[:, :2], place[:, :2])
    assert up[2:, 2:].double().mean() == pytest.approx(0.5, abs=0.05)


def test_fog_keeps_the_brightest_and_clouds_fill_their_range():
    clouds = corruptions.plasma(50, 2.0, torch.Generator().manual_seed(0))
    assert (clouds.amin((1, 2)), clouds.amax((1, 2)))[0].abs().max() == 0
    torch.testing.assert_close(clouds.amax((1, 2)), torch.ones(50))
    # Neighbours are alike, also across the border: the grid has none.
    near = (clouds - clouds.roll(1, 2)).abs().mean((0, 1))
    assert near.max() < 0.6 * (clouds - clouds.roll(16, 2)).abs().mean()
    white = torch.full((30, 3, SIDE, SIDE), 255, dtype=torch.uint8)
    found = corrupt(white, "fog", 5).double() / 255
    assert found.amin() == pytest.approx(1 / 2.5, abs=0.01)  # no cloud: 1 / (1 + 1.5)
    assert found.amax() == pytest.approx(1.0, abs=0.01)


def test_snow_falls_in_white_streaks():
    grey = torch.full((30, 3, SIDE, SIDE), 60, dtype=torch.uint8)
    kept, grey_share = 0.8, 60 / 255
    found = corrupt(grey, "snow", 5).double() / 255
    least = kept * grey_share + (1 - kept) * (grey_share * 1.5 + 0.5)
    assert found.amin() == pytest.approx(least, abs=0.01)
    assert found.mean() > least + 0.05
    assert torch.equal(found, found[:, :1].expand(-1, 3, -1, -1))
    assert torch.equal(found[:, :, 1:-1, 1:-1], found.rot90(2, (2, 3))[:, :, 1:-1, 1:-1])


def test_elastic_moves_a_picture_as_far_as_its_corners():
    found = corrupt(IMAGES, "elastic_transform", 1).double()
    assert (found - IMAGES.double()).abs().mean() > 2
    flat = torch.full((5, 3, SIDE, SIDE), 77, dtype=torch.uint8)
    for severity in SEVERITIES:
        assert (corrupt(flat, "elastic_transform", severity).long() - 77).abs().max() <= 1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_is_drawn_depends_on_seed_severity_and_place_alone(name):
    first = corrupt(IMAGES, name, 3)
    assert first.dtype == torch.uint8
    assert first.shape == IMAGES.shape
    assert torch.equal(corrupt(IMAGES, name, 3), first)
    assert torch.equal(corrupt(IMAGES, name, 3, seed=1), first) == (name not in RANDOM)
    harder, softer = (corrupt(IMAGES, name, s).double() - IMAGES.double() for s in (5, 1))
    if name != "elastic_transform":  # its severities are of different kinds
        assert harder.abs().mean() > softer.abs().mean()


def test_more_images_leave_the_first_ones_as_they_are():
    many = IMAGES.repeat(CHUNK // 20 + 1, 1, 1, 1)
    assert torch.equal(corrupt(many, "snow", 2)[:CHUNK], corrupt(many[:CHUNK], "snow", 2))
    assert not torch.equal(corrupt(many, "snow", 2)[CHUNK:], corrupt(many[:20], "snow", 2))
    assert len(corrupt(IMAGES[:0], "fog", 1)) == 0


def test_other_names_severities_and_images_are_refused():
    with pytest.raises(ValueError, match=r"Expected a corruption of gaussian_noise, .*got frost\."):
        corrupt(IMAGES, "frost", 1)
    with pytest.raises(ValueError, match=r"Expected a severity from 1 to 5, got 6\."):
        corrupt(IMAGES, "fog", 6)
    with pytest.raises(ValueError, match=r"Expected uint8 images \(N, 3, 32, 32\), got torch.float32"):
        corrupt(IMAGES.float(), "fog", 1)


# ---- the published files ---------------------------------------------------------------------------------------------


@pytest.fixture
def official(tmp_path) -> ImageSet:
    """10,000 black test images, and files of three corruptions in a data root: black, but for what a test sets."""
    labels = torch.arange(10_000) % 10
    (tmp_path / "CIFAR-10-C").mkdir()
    np.save(tmp_path / "CIFAR-10-C/labels.npy", labels.repeat(5).to(torch.uint8).numpy())
    for name in ("fog", "frost", "saturate"):
        shape = (50_000, SIDE, SIDE, 3)
        np.lib.format.open_memmap(tmp_path / f"CIFAR-10-C/{name}.npy", "w+", np.uint8, shape)  # takes no space
    return ImageSet(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8).expand(10_000, -1, -1, -1), labels, "")


def test_published_files_are_read_and_the_others_made(official, tmp_path):
    written = np.load(tmp_path / "CIFAR-10-C/frost.npy", mmap_mode="r+")
    written[3 * 10_000 + 42, 5, 6] = 1, 2, 3
    written.flush()
    images = CorruptedImages(official, torch.tensor([7, 42]), tmp_path)
    assert images.names == [*CORRUPTIONS, "frost"]
    assert images.published == ["fog", "frost"]
    found = images.get("frost", 4)
    assert found.shape == (2, 3, SIDE, SIDE)
    assert found[1, :, 5, 6].tolist() == [1, 2, 3]
    assert found.sum() == 6
    assert torch.equal(images.get("snow", 4), corrupt(official.images[[7, 42]], "snow", 4))
    without = CorruptedImages(official, torch.tensor([7]), tmp_path / "elsewhere")
    assert (without.names, without.published) == (list(CORRUPTIONS), [])


@pytest.mark.parametrize(
    ("damage", "got"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "got: "),
        (lambda path: path.write_bytes(b""), "got: "),
        (lambda path: np.save(path, np.zeros((3, 32, 32, 3), np.uint8)), r"got: uint8 \(3, 32, 32, 3\)"),
        (lambda path: np.save(path, np.array([{}], dtype=object)), "got: "),
        (lambda path: path.unlink(), "got: No such file or directory"),
    ],
    ids=["cut", "empty", "shape", "pickle", "missing"],
)
def test_a_damaged_file_is_one_message(official, tmp_path, damage, got):
    images = CorruptedImages(official, torch.arange(3), tmp_path)
    (tmp_path / "CIFAR-10-C/fog.npy").unlink()
    np.save(tmp_path / "CIFAR-10-C/fog.npy", np.zeros(200, np.uint8))
    damage(tmp_path / "CIFAR-10-C/fog.npy")
    with pytest.raises(
        ValueError, match=rf"Expected uint8 numbers of the shape \(50000, 32, 32, 3\) in .*fog\.npy, {got}"
    ):
        images.get("fog", 1)


def test_files_of_other_images_are_refused(official, tmp_path):
    with pytest.raises(ValueError, match=r"Expected the labels of the test images in .*labels\.npy, got others"):
        CorruptedImages(ImageSet(official.images, official.labels.flip(0), ""), torch.arange(3), tmp_path)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_a_run_is_tested_compared_and_reported_with_corruptions(finished, capsys):
    run = finished(*MLP)
    assert (
        main(["test", "--run", str(run), "--corruptions", "50", "--figures.every_n_epochs=1", "--figures.show=[]"]) == 0
    )
    assert "corruptions on 50 test SYNTHETIC images: mean accuracy 0." in capsys.readouterr().err
    entry = Run(run).result["corruptions"]
    assert list(entry["accuracy"]) == list(CORRUPTIONS)
    assert entry["mean"] == pytest.approx(np.mean(list(entry["accuracy"].values())))
    model, data = load_trained(run, device="cpu")
    data.setup("test")
    rows = stratified_indices(data.test.labels, 50, 0)[1]
    for name, severity in (("fog", 2), ("jpeg_compression", 5)):
        images = corrupt(data.test.images[rows], name, severity)
        right = model.predict_logits(images, "none").argmax(1) == data.test.labels[rows]
        assert entry["accuracy"][name][severity - 1] == pytest.approx(float(right.double().mean()))
    assert (run / "figures/test_corruptions.png").is_file()
    assert main(["compare", str(run), "--output", "compared"]) == 0
    assert f"{100 * entry['mean']:.2f}" in Path("compared/compare.md").read_text()


def test_without_the_option_nothing_is_corrupted(finished):
    run = finished(*MLP)
    assert main(["test", "--run", str(run)]) == 0
    assert "corruptions" not in Run(run).result


@pytest.mark.slow
def test_the_report_has_the_corruptions_and_two_processes_find_the_same(finished):
    run = finished(*MLP)
    assert main(["test", "--run", str(run), "--corruptions"]) == 0  # 2,000: all 200
    entry = Run(run).result["corruptions"]
    assert entry["images"] == 200
    assert main(["report", "--run", str(run), "--output", "page"]) == 0
    text = Path("page/report.md").read_text()
    assert f"The mean accuracy over 14 corruptions in 5 severities is {100 * entry['mean']:.1f} %" in text
    assert "Right as they are, wrong under" in text
    command("test", "--run", str(run), "--corruptions", *TWO)
    again = Run(run).result["corruptions"]
    assert {**again, "seconds": 0} == {**entry, "seconds": 0}
