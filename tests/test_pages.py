"""Pages of sections, as HTML and as Markdown."""

from __future__ import annotations

import html.parser
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import cifar_lightning
from cifar_lightning.pages import Page, Picture, Section, Table, Text, write_page


class Reader(html.parser.HTMLParser):
    """Tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        self.text += data
        if self.tags:
            self.texts.append((self.tags[-1][0], data))

    def headings(self) -> list[str]:
        return [text for tag, text in self.texts if tag in ("h1", "h2") and text.strip()]

    def all(self, *names: str) -> list[tuple[str, dict[str, str | None]]]:
        return [(tag, attributes) for tag, attributes in self.tags if tag in names]


def test_what_a_page_shows_is_escaped():
    evil = '<script>alert("x")</script>'
    table = Table([evil, "b|c"], [[evil, "1"]], evil)
    picture = Picture("p", Figure(figsize=(1, 1)), f'" onerror={evil}', table)
    folded = replace(table, folded=True)
    page = Page(evil, [Section(evil, [Text(evil), Text(evil, code=True), table, folded, picture])])
    read = Reader(page.as_html())
    assert (len(read.all("table")), len(read.all("caption"))) == (3, 2)
    assert len(read.all("summary")) == page.as_markdown("").count("<summary>") == 2  # the folded one, and the numbers
    assert not read.all("script")
    assert all(set(attributes) == {"src", "alt", "width", "height"} for _, attributes in read.all("img"))
    markdown = page.as_markdown("figures")
    assert "<script>" not in re.sub(r"```.*?```", "", markdown, flags=re.DOTALL).replace("\\<script\\>", "")
    assert "b\\|c" in markdown


def test_a_page_in_html_and_in_markdown(tmp_path):
    table = Table(["layer", "weights"], [["conv", "10"], ["head", "20"]], "Weights")
    figure = Figure(figsize=(2, 1), dpi=100)
    picture = Picture("curve", figure, "A curve.", replace(table, caption="Its values"))
    page = Page("Title", [Section("First", [Text("Words."), table]), Section("Second", [picture, Text("a: 1", True)])])
    file = write_page(page, tmp_path, "page")
    read = Reader(file.read_text(encoding="utf-8"))
    assert [tag for tag, _ in read.all("h1", "h2", "p", "table", "img", "pre")] == [
        *("h1", "h2", "p", "table"),
        *("h2", "img", "table", "pre"),
    ]
    assert [attributes["href"] for _, attributes in read.all("a")] == ["#s1", "#s2"]
    ((_, image),) = read.all("img")
    assert (image["alt"], image["width"], image["height"]) == ("A curve.", "200", "100")
    assert (tmp_path / "figures/curve.png").read_bytes() == picture.png
    assert (tmp_path / "page.md").read_text(encoding="utf-8").split("\n\n") == [
        "# Title",
        "## First",
        "Words.",
        "Weights",
        "| layer | weights |\n| --- | ---: |\n| conv | 10 |\n| head | 20 |",
        "## Second",
        "![A curve.](figures/curve.png)",
        "<details><summary>The numbers</summary>",
        "Its values",
        "| layer | weights |\n| --- | ---: |\n| conv | 10 |\n| head | 20 |",
        "</details>",
        "```yaml\na: 1\n```\n",
    ]


def test_two_pictures_of_one_name_would_overwrite_each_other():
    pictures = [Picture("p", Figure(), "One."), Picture("p", Figure(), "Another.")]
    with pytest.raises(ValueError, match="its own name, got several p"):
        Page("Title", [Section("Section", pictures)])


def test_a_wheel_contains_the_templates():
    package = Path(cifar_lightning.__file__).parent
    project = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["cifar_lightning.pages"]
    templates = set((package / "pages").glob("*.html"))
    assert templates == {path for pattern in patterns for path in (package / "pages").glob(pattern)} != set()
