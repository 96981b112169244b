"""TensorBoard as a person sees it: served on loopback, opened in headless Chromium, read from what is on the screen."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

__all__ = ["PROGRAMS", "TensorBoardPage", "chromium", "missing_programs", "set_screen", "tensorboard"]

T = TypeVar("T")

PROGRAMS = ("chromium", "chromedriver")
SCREEN_PX = (1440, 1000)
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers forbid the namespaces that the sandbox is made of
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
RELOAD_SECONDS, GIVE_UP_SECONDS = 10, 40

# TensorBoard nests web components: a plain query stops at the first shadow root.
DEEP_QUERY = """
function* everything(root) {
  for (const element of root.querySelectorAll("*")) {
    yield element;
    if (element.shadowRoot) yield* everything(element.shadowRoot);
  }
}
const visible = (selector, root = document) =>
  [...everything(root)].filter((element) => element.matches(selector) && element.checkVisibility());
const tick = (label, on) => {
  for (const box of visible("paper-checkbox"))
    if (box.innerText.startsWith(label) && box.checked != on) box.click();
};
"""
# Ticks fade in, panes slide: what is read or pictured halfway is not what comes to be seen.
STILL = "return document.getAnimations().every((animation) => animation.playState !== 'running');"


def missing_programs() -> list[str]:
    """The programs that the browser needs and that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """Serves a folder of runs on a free port of the loopback device.

    Args:
        logdir: the folder that holds the runs.

    Yields:
        The address, with a slash at its end.

    Raises:
        RuntimeError: when TensorBoard ends instead of serving; its last words are in the message.
    """
    logdir = logdir.resolve()
    # The page names the folder as it is given here, and pictures of it should not tell where it lies.
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir.name]
    # The system chooses port 0's number, so that nobody can take it in between.
    command += ["--host", "127.0.0.1", "--port", "0", "--load_fast=false"]
    with subprocess.Popen(command, cwd=logdir.parent, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            words = []
            for line in server.stderr:
                words.append(line)
                if address := re.search(r"http://127\.0\.0\.1:\d+/", line):
                    yield address.group()
                    return
            raise RuntimeError(f"Expected TensorBoard to serve {logdir}, but it ended: {''.join(words[-5:]).strip()}")
        finally:
            server.kill()  # it holds nothing that it would have to save


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Starts Chromium without a window, with the console's messages kept.

    Args:
        profile: an empty folder, or one to make, for everything that Chromium writes.
    """
    binary, service = (shutil.which(program) for program in PROGRAMS)
    assert binary, "Selenium would download what is missing"
    assert service, "Selenium would download what is missing"
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(service))
    try:
        set_screen(driver)
        yield driver
    finally:
        driver.quit()


def set_screen(driver: webdriver.Chrome, zoom: float = 1.0, size_px: tuple[int, int] = SCREEN_PX) -> None:
    """Gives the page a whole screen, where a window would spend a part of it on its frame.

    Args:
        driver: the browser.
        zoom: size of everything on it; below 1, more of the page fits.
        size_px: width and height.
    """
    width, height = (round(side / zoom) for side in size_px)
    screen = {"width": width, "height": height, "deviceScaleFactor": zoom, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


class TensorBoardPage:
    """Reads TensorBoard's tabs: each method opens one and waits until it shows enough.

    Every method raises a `TimeoutException` that tells what was on the screen when the patience ran out.

    Args:
        driver: the browser.
        url: address of TensorBoard, with a slash at its end.
    """

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def _read(self, tab: str, script: str, enough: Callable[[T], object], **state: str) -> T:
        """What the script returns in a tab, once that is enough.

        The page does not follow its data by itself, so it is loaded again, as a person would do.
        """
        seen: Any = None

        def satisfied(driver: webdriver.Chrome) -> object:
            nonlocal seen
            seen = driver.execute_script(DEEP_QUERY + script)
            return enough(seen) and driver.execute_script(STILL)

        fragment = "&".join([tab, *(f"{key}={quote(value)}" for key, value in state.items())])
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < give_up:
            self.driver.get("about:blank")  # else only the fragment changes, and nothing is loaded
            self.driver.get(f"{self.url}#{fragment}")
            with suppress(TimeoutException):
                WebDriverWait(self.driver, RELOAD_SECONDS, poll_frequency=0.1).until(satisfied)
                return seen
        raise TimeoutException(f"Tab {tab} of TensorBoard never showed enough, at last: {seen!r}")

    def tabs(self, enough: Callable[[list[str]], object]) -> list[str]:
        """Names of the tabs, in capitals as they are shown."""
        script = "return visible('.active-plugin-list .mdc-tab').map((tab) => tab.innerText.trim());"
        return self._read("timeseries", script, enough)

    def curves(self, tags: str, enough: Callable[[dict[str, int]], object]) -> dict[str, int]:
        """Number of curves, each of two points or more, in the chart of each tag.

        Args:
            tags: regular expression of the tags to show.
            enough: whether all has been drawn.
        """
        script = """
        tick("Ignore outliers", false);  // it drops whole curves where points are few
        const drawn = (line) => /L/.test(line.getAttribute("d")) && !/NaN/.test(line.getAttribute("d"));
        return Object.fromEntries(visible("tf-scalar-card").map(
          (card) => [card.tag, visible("path.line", card.shadowRoot).filter(drawn).length]));
        """
        return self._read("scalars", script, enough, tagFilter=tags, _smoothingWeight="0")

    def images(self, tags: str, enough: Callable[[dict[str, int]], object]) -> dict[str, int]:
        """Width in pixels of each image, shown at its actual size, by "run tag"; 0 while it is loading.

        Args:
            tags: regular expression of the tags to show.
            enough: whether all has been loaded.
        """
        script = """
        tick("Show actual image size", true);
        const shown = (image) => image.getBoundingClientRect().width >= image.naturalWidth;
        return Object.fromEntries(visible("tf-image-loader").map((card) => [`${card.run} ${card.tag}`,
          Math.max(0, ...visible("img", card.shadowRoot).filter(shown).map((image) => image.naturalWidth))]));
        """
        return self._read("images", script, enough, tagFilter=tags)

    def graph(self, enough: Callable[[list[str]], object]) -> list[str]:
        """Labels of the graph's nodes."""
        script = "return visible('text.nodelabel').map((label) => label.firstChild.textContent);"
        return self._read("graphs", script, enough)

    def texts(self, enough: Callable[[list[str]], object]) -> list[str]:
        """Texts in code blocks."""
        return self._read("text", "return visible('code').map((code) => code.innerText);", enough)

    def hparams(self, enough: Callable[[list[dict[str, str]]], object]) -> list[dict[str, str]]:
        """Rows of the table of hyperparameters and metrics, from column to cell."""
        script = """
        const cells = visible("vaadin-grid-cell-content").filter((cell) => cell.innerText.trim());
        return cells.map((cell) => {
          const box = cell.getBoundingClientRect();
          return [Math.round(box.top + box.height / 2), box.left, cell.innerText.trim()];
        });
        """

        def rows(cells: list[tuple[float, float, str]]) -> list[dict[str, str]]:
            lines: dict[float, dict[float, str]] = defaultdict(dict)  # by height, then by left edge
            for height, left, text in cells:
                lines[height][left] = text
            header, *body = [lines[height] for height in sorted(lines)] or [{}]
            return [{header[left]: line.get(left, "") for left in header} for line in body]

        return rows(self._read("hparams", script, lambda cells: enough(rows(cells))))

    def projector(self, enough: Callable[[dict[str, str]], object]) -> dict[str, str]:
        """What the projector says of the features that it has loaded: their number, and their dimension."""
        script = """
        const inner = (root) => [...everything(root)].find((element) => element.tagName === "IFRAME")?.contentDocument;
        let inside = document;  // the projector is a page in a page in the page
        while (inner(inside)) inside = inner(inside);
        const text = (selector) => visible(selector, inside).map((element) => element.innerText.trim()).join();
        return {points: text(".numDataPoints"), dimension: text(".dim")};
        """
        return self._read("projector", script, enough)

    def errors(self) -> list[str]:
        """Errors that the console has shown since the last call, without those of hosts outside, such as fonts."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")
        return [e["message"] for e in entries if e["level"] == "SEVERE" and self.url in e["message"]]
