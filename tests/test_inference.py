"""A person's own pictures, good and bad."""

from __future__ import annotations

import csv
import html
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import DATA, MLP

from cifar_lightning import CLASSES, load
from cifar_lightning.__main__ import main
from cifar_lightning.data import pictures
from cifar_lightning.data.pictures import find_pictures, load_picture


def noise(width: int = 32, height: int = 32, channels: int = 3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def as_image(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(1, 2, 0).numpy()


def test_a_picture_of_the_right_size_stays_as_it_is(tmp_path):
    Image.fromarray(noise()).save("p.png")
    found = load_picture(Path("p.png"))
    assert (found.dtype, found.shape) == (torch.uint8, (3, 32, 32))
    np.testing.assert_array_equal(as_image(found), noise())


def test_the_middle_is_taken_and_averaged():
    wide = noise(128, 64)
    Image.fromarray(wide).save("p.png")
    expected = wide[:, 32:96].reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(as_image(load_picture(Path("p.png"))) - expected).max() <= 1  # Pillow rounds twice


def test_small_and_narrow_pictures_are_stretched_to_the_square():
    for size in ((1, 1), (5, 90), (16, 16)):
        Image.new("RGB", size, (10, 200, 30)).save("p.png")
        assert (as_image(load_picture(Path("p.png"))) == (10, 200, 30)).all()


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_pictures_are_turned_upright(orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise()).save("p.png", exif=exif)
    np.testing.assert_array_equal(as_image(load_picture(Path("p.png"))), np.rot90(noise(), turns))


def test_what_is_transparent_is_white():
    clear = np.dstack([noise(), np.zeros((32, 32), np.uint8)])
    clear[:16, :, 3] = 255
    Image.fromarray(clear).save("p.png")
    found = as_image(load_picture(Path("p.png")))
    np.testing.assert_array_equal(found[:16], noise()[:16])
    assert (found[16:] == 255).all()
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([7, 8, 9])
    palette.save("p.gif", transparency=0)
    assert (as_image(load_picture(Path("p.gif"))) == 255).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LAB"])
def test_every_mode_that_a_file_can_have_is_read(mode):
    path = Path("p.tif" if mode in ("CMYK", "YCbCr", "LAB") else "p.png")
    if mode == "LAB":
        Image.frombytes("LAB", (32, 32), noise().tobytes()).save(path)
    else:
        Image.fromarray(noise()).convert(mode).save(path)
    with Image.open(path) as picture:
        assert picture.mode == mode
        np.testing.assert_array_equal(as_image(load_picture(path)), np.asarray(picture.convert("RGB")))


def test_sixteen_bits_become_eight():
    deep = (np.arange(1024, dtype=np.uint16) * 64).reshape(32, 32)
    Image.fromarray(deep).save("p.png")
    found = as_image(load_picture(Path("p.png")))
    np.testing.assert_allclose(found[:, :, 0], deep / 257, atol=0.51)
    share = (deep / 65535).astype(np.float32)
    share[0, 0] = np.nan  # is black, as it is here
    Image.fromarray(share).save("p.tif")
    np.testing.assert_allclose(as_image(load_picture(Path("p.tif")))[:, :, 1], deep / 257, atol=0.51)


def broken(kind: str) -> Path:
    Image.fromarray(noise(300, 300)).save("good.png")
    content = Path("good.png").read_bytes()
    bad = {"empty": b"", "cut short": content[: len(content) // 2], "text": b"no picture", "header": content[:30]}
    path = Path(f"{kind}.png")
    path.write_bytes(bad[kind])
    return path


@pytest.mark.parametrize("kind", ["empty", "cut short", "text", "header"])
def test_what_cannot_be_read_says_so(kind):
    with pytest.raises(ValueError, match=r"it (is not a picture|cannot be read|is empty)"):
        load_picture(broken(kind))


@pytest.mark.filterwarnings("ignore:.*could be decompression bomb:PIL.Image.DecompressionBombWarning")
def test_a_huge_picture_is_refused_before_it_is_decoded(monkeypatch):
    Image.new("1", (20_000, 20_000)).save("p.png")
    monkeypatch.setattr(pictures, "as_rgb", lambda picture: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="pixels"):
        load_picture(Path("p.png"))
    Image.new("1", (11_000, 10_000)).save("p.png")  # which Pillow itself would only warn of
    with pytest.raises(ValueError, match="11000 x 10000 pixels; at most 100,000,000"):
        load_picture(Path("p.png"))


def test_folders_are_searched_and_files_taken_as_they_are(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.txt"):
        Path("f", name).parent.mkdir(parents=True, exist_ok=True)
        Path("f", name).write_bytes(b"x")
    names = ["f/a.JPG", "f/b.png", "f/deep/c.webp"]
    assert [str(path) for path in find_pictures([Path("f")])] == names
    assert find_pictures([Path("f/notes.txt")]) == [Path("f/notes.txt")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    assert main(["fit", *DATA, *MLP, "--trainer.max_epochs=1", "--save_dir", str(folder), "--version", "v"]) == 0
    return folder / "mlp/v"


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_picture_is_predicted_as_the_network_says(run):
    rng = np.random.default_rng(1)
    for i in range(7):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(f"{i}.png")
    Path("mine").mkdir()
    for i in range(7):
        Path(f"{i}.png").rename(f"mine/{i}.png")
    assert main(["predict", "--run", str(run), "--images", "mine"]) == 0
    rows = table(run / "predictions/images.csv")
    assert [row["file"] for row in rows] == [f"mine/{i}.png" for i in range(7)]
    model = load(run)
    for row in rows:
        with torch.no_grad():
            expected = model(load_picture(Path(row["file"]))[None]).softmax(1)[0]
        assert row["prediction"] == CLASSES[int(expected.argmax())]
        assert [float(row[name]) for name in CLASSES] == pytest.approx(expected.tolist(), abs=2e-6)
        assert float(row["probability"]) == pytest.approx(expected.max().item(), abs=2e-6)
    as_json = json.loads((run / "predictions/images.json").read_text())
    assert [{name: str(value) for name, value in row.items()} for row in as_json] == rows
    page = (run / "predictions/images.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 7


def test_a_broken_file_is_named_and_skipped(run, capsys):
    bad = broken("cut short")
    assert (
        main(["predict", "--run", str(run), "--images", "good.png", str(bad), "--output", "out", "--tta", "flip"]) == 1
    )
    error = capsys.readouterr().err
    assert f"Skipped {bad}: it cannot be read" in error
    assert "Predicted 1 of 2 files, 1 skipped" in error
    assert len(table(Path("out/images.csv"))) == 1


def test_nothing_to_read_is_an_error(run, capsys):
    assert main(["predict", "--run", str(run), "--images", str(broken("text")), "--output", "out"]) == 2
    assert "error: Expected at least one picture" in capsys.readouterr().err
    assert not Path("out").exists()
    assert main(["predict", "--run", "nowhere", "--images", "good.png"]) == 2
    assert "which is neither" in capsys.readouterr().err


def test_names_are_escaped(run):
    name = '<b>&".png'
    Image.fromarray(noise()).save(name)
    assert main(["predict", "--run", str(run), "--images", name]) == 0
    page = (run / "predictions/images.html").read_text()
    assert "<b>" not in page
    assert html.unescape(page).count(name) == 2  # under the picture, and in its place
