"""A person opens a report on a telephone and on a desk: does it fit, and is everything there?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser import chromium, missing_programs, set_screen
from tiny import CNN, DATA, MLP

from cifar_lightning.__main__ import main

pytestmark = pytest.mark.slow

# Contrast as WCAG 2 defines it, of each element that holds text itself, against the nearest ground that is painted.
CONTRASTS = """
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (colour) => {
  const linear = (c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const [r, g, b] = numbers(colour).map((c) => linear(c / 255));
  return .2126 * r + .7152 * g + .0722 * b;
};
const ground = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  return numbers(colour)[3] === 0 && element.parentElement ? ground(element.parentElement) : colour;
};
const worded = [...document.body.querySelectorAll("*")].filter((element) =>
  [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim()));
return worded.map((element) => {
  const [dark, light] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => a - b);
  return (light + .05) / (dark + .05);
});
"""


@pytest.fixture(scope="module")
def report(once) -> Path:
    if (missing := missing_programs()) and not os.environ.get("CI"):
        pytest.skip(f"needs {' and '.join(missing)}")
    assert not missing, "CI has to install the browser"

    def write(folder: Path) -> None:
        for model in (CNN, MLP):
            assert main(["fit", *DATA, *model, "--save_dir", str(folder), "--version", "v"]) == 0
        runs = [f"--run={folder / name / 'v'}" for name in ("cnn", "mlp")]
        assert main(["report", *runs, "--output", str(folder / "report")]) == 0

    return once("browser-report", write) / "report/report.html"


@pytest.fixture(scope="module")
def driver(report, tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.mark.parametrize("width_px", [390, 1440])
def test_the_page_fits_and_is_whole(driver, report, width_px):
    set_screen(driver, size_px=(width_px, 1000))
    driver.get(report.as_uri())
    images = driver.execute_script(
        "return [...document.images].map((i) => [i.complete, i.naturalWidth, i.clientWidth]);"
    )
    assert len(images) > 20
    assert all(complete and natural > 0 for complete, natural, _ in images)
    assert all(shown <= width_px for _, _, shown in images)
    assert driver.execute_script("return document.documentElement.scrollWidth;") <= width_px
    assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert driver.execute_script("return document.documentElement.lang;") == "en"
    assert min(driver.execute_script(CONTRASTS)) >= 4.5


def test_the_numbers_unfold(driver, report):
    driver.get(report.as_uri())
    rows = "return [...document.querySelectorAll('details tr')].filter((row) => row.checkVisibility()).length;"
    assert driver.execute_script(rows) == 0
    driver.execute_script("document.querySelectorAll('details').forEach((part) => { part.open = true; });")
    assert driver.execute_script(rows) > 50
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth;")
