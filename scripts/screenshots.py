"""Takes the pictures of TensorBoard in docs/images from a folder of runs. `python scripts/screenshots.py --help`."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from selenium import webdriver

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import TensorBoardPage, chromium, missing_programs, set_screen, tensorboard  # noqa: E402

SCALARS = r"^(train|val)/(acc|loss)$|^step/lr$|^train/images_per_second$"


def main() -> None:
    """Opens three tabs, each once it shows all runs, and writes a PNG of 1440 x 1000 pixels of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logdir", type=Path, help="folder of runs that were validated and tested")
    parser.add_argument("output", type=Path, nargs="?", default=ROOT / "docs" / "images", help="folder of the pictures")
    args = parser.parse_args()
    runs = len({path.parent for path in args.logdir.rglob("events.out.tfevents.*")})
    if not runs:
        parser.error(f"Expected a folder of runs with TensorBoard events as LOGDIR, got {args.logdir}.")
    if missing := missing_programs():
        parser.error(f"Expected {' and '.join(missing)} on the PATH. On Debian: apt install chromium chromium-driver.")
    args.output.mkdir(parents=True, exist_ok=True)

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,  # Chromium may write until it is gone
        tensorboard(args.logdir) as url,
        chromium(Path(profile)) as driver,
    ):
        page = TensorBoardPage(driver, url)
        set_screen(driver, zoom=0.6)  # hyperparameters and metrics side by side
        page.hparams(lambda rows: len(rows) == runs)
        save(driver, args.output / "tensorboard-hparams.png")
        set_screen(driver)
        page.images("/confusion$", lambda images: images and all(images.values()))
        save(driver, args.output / "tensorboard-confusion.png")
        page.curves(SCALARS, lambda curves: {n for tag, n in curves.items() if re.search(SCALARS, tag)} == {runs})
        save(driver, args.output / "tensorboard-scalars.png")


def save(driver: webdriver.Chrome, path: Path) -> None:
    """Writes what is on the screen as PNG."""
    driver.save_screenshot(str(path))
    print(path)


if __name__ == "__main__":
    main()
