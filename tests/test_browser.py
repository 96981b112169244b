"""A person opens TensorBoard after two trainings: what is there to be seen?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser import TensorBoardPage, chromium, missing_programs, tensorboard
from PIL import Image
from tiny import DRAWING, MLP, fit

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
RUNS = {"mlp/v", "cnn/v"}
SCALARS = {"train/loss", "train/acc", "val/loss", "val/acc", "step/lr", "train/images_per_second"}


@pytest.fixture(scope="module")
def logs(drawn, once):
    if (missing := missing_programs()) and not os.environ.get("CI"):
        pytest.skip(f"needs {' and '.join(missing)}")
    assert not missing, "CI has to install the browser"
    options = (*MLP, *DRAWING, "--test", "--version=v", "--save_dir", drawn)
    once("drawn beside it", lambda _: fit(*options, save_dir=drawn))
    return drawn


@pytest.fixture(scope="module")
def opened(logs, tmp_path_factory):
    with tensorboard(logs) as url, chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield TensorBoardPage(driver, url)


@pytest.fixture
def page(opened):
    yield opened
    assert opened.errors() == []


def test_each_kind_of_record_has_its_tab(page):
    expected = {"TIME SERIES", "SCALARS", "IMAGES", "GRAPHS", "TEXT", "HPARAMS", "PROJECTOR"}
    assert set(page.tabs(lambda tabs: len(tabs) >= len(expected))) == expected


def test_charts_show_a_curve_of_each_run(page):
    expected = dict.fromkeys(SCALARS, len(RUNS))
    curves = page.curves(f"^({'|'.join(SCALARS)})$", lambda curves: expected.items() <= curves.items())
    assert expected.items() <= curves.items()


@pytest.mark.parametrize(
    "tag", ["val/confusion", "val/reliability", "val/mistakes", "test/feature_maps", "val/filters"]
)
def test_figures_of_each_run_are_loaded(page, tag):
    expected = {f"{run} {tag}" for run in RUNS}
    images = page.images(f"^{tag}$", lambda images: all(images.get(image) for image in expected))
    assert all(images[image] >= 500 for image in expected)  # narrower, and nobody could read the labels


def test_graph_shows_the_network(page):
    labels = page.graph(lambda labels: len(labels) >= 3)
    assert {"input", "output"} < set(labels)
    assert {"MLP", "CNN"} & set(labels)


def test_text_shows_the_configuration_of_each_run(page):
    texts = page.texts(lambda texts: len(texts) >= len(RUNS))
    for name in ("MLPClassifier", "CNNClassifier"):
        assert [text for text in texts if name in text and "synthetic_train: 600" in text and "batch_size: 100" in text]


def test_hparams_compare_the_runs(page):
    rows = page.hparams(lambda rows: {row.get("Trial ID") for row in rows} >= RUNS)
    assert {row["Trial ID"] for row in rows} == RUNS
    for row in rows:
        assert [column for column in row if column.startswith(("model.", "data."))]
        for metric in ("hp/val/acc", "hp/test/acc"):
            assert 0 <= float(row[metric]) <= 1
        assert not [column for column, cell in row.items() if cell == "NaN"]


def test_projector_loads_the_features_of_the_validation_images(page):
    seen = page.projector(lambda seen: seen["points"] == "100")
    assert seen["dimension"] in ("32", "8")  # of the MLP and of the CNN: the projector opens one of the runs


def test_script_takes_the_pictures_of_the_documents(logs, tmp_path):
    script = ROOT / "scripts" / "screenshots.py"
    subprocess.run([sys.executable, str(script), str(logs), str(tmp_path)], check=True, timeout=120)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tensorboard-scalars.png",
        "tensorboard-confusion.png",
        "tensorboard-hparams.png",
    }
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.size == (1440, 1000)
            assert len(image.convert("RGB").getcolors(1 << 24)) > 100  # a blank page has few
