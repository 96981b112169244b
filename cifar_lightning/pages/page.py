"""Blocks, sections and pages. `page.html` is how they look in HTML; their methods are how they look in Markdown."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

import jinja2
from matplotlib.figure import Figure

from cifar_lightning.files import write_bytes_atomic, write_text_atomic

__all__ = ["Block", "Page", "Picture", "Section", "Table", "Text", "render", "write_page"]


@dataclass(frozen=True)
class Text:
    """A paragraph, or preformatted lines.

    Attributes:
        text: plain text.
        code: whether to keep its lines as they are.
    """

    kind: ClassVar[str] = "text"
    text: str
    code: bool = False

    def markdown(self, figures: str) -> Iterator[str]:
        """Yield lines of Markdown; `figures` is the folder of the pictures, relative to the file."""
        yield from ("```yaml", self.text.rstrip("\n"), "```", "") if self.code else (escape(self.text), "")


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        header: the names of the columns.
        rows: cells, as many in each row as the header has; the first one names the row.
        caption: what the table shows.
        folded: whether only the caption is visible until the reader opens the table.
    """

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    folded: bool = False

    def markdown(self, figures: str) -> Iterator[str]:
        """Yield lines of Markdown."""
        if self.folded:
            yield from folded(self.caption, self.lines())
        else:
            yield from (escape(self.caption), "", *self.lines())

    def lines(self) -> Iterator[str]:
        """Yield the table without its caption as lines of Markdown."""
        rule = ["---", *("---:" for _ in self.header[1:])]
        for cells in (map(escape_cell, self.header), rule, *(map(escape_cell, row) for row in self.rows)):
            yield f"| {' | '.join(cells)} |"
        yield ""


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: file name without its suffix, used once in a page.
        figure: what to draw.
        alt: what the figure shows, for readers who cannot see it.
        numbers: the values behind the figure, folded away under it.
    """

    kind: ClassVar[str] = "picture"
    name: str
    figure: Figure
    alt: str
    numbers: Table | None = None

    @cached_property
    def png(self) -> bytes:
        """The figure as a PNG file."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png")
        return file.getvalue()

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        width, height = (int.from_bytes(self.png[at : at + 4], "big") for at in (16, 20))  # of the PNG header
        return width, height

    def markdown(self, figures: str) -> Iterator[str]:
        """Yield lines of Markdown; `figures` is the folder of the pictures, relative to the file."""
        yield from (f"![{escape(self.alt)}]({figures}/{self.name}.png)", "")
        if self.numbers:
            yield from folded("The numbers", (escape(self.numbers.caption), "", *self.numbers.lines()))


Block = Text | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and the blocks under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A title and sections.

    Raises:
        ValueError: when two pictures have the same name.
    """

    title: str
    sections: Sequence[Section]

    def __post_init__(self) -> None:
        names = [picture.name for picture in self.pictures()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"Expected each picture of a page to have its own name, got several {', '.join(twice)}.")

    def pictures(self) -> list[Picture]:
        """Return the pictures of all sections."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]

    def as_html(self) -> str:
        """Return one HTML file that loads nothing else."""
        return render("page.html", title=self.title, sections=self.sections)

    def as_markdown(self, figures: str) -> str:
        """Return the same as Markdown; `figures` is the folder of the pictures, relative to the file."""
        lines = [f"# {escape(self.title)}", ""]
        for section in self.sections:
            lines += [f"## {escape(section.title)}", ""]
            for block in section.blocks:
                lines += block.markdown(figures)
        return "\n".join(lines).rstrip("\n") + "\n"


def write_page(page: Page, folder: Path, name: str) -> Path:
    """Write <name>.html, <name>.md and figures/ into a folder.

    Returns:
        The HTML file.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for picture in page.pictures():
        write_bytes_atomic(folder / "figures" / f"{picture.name}.png", picture.png)
    write_text_atomic(folder / f"{name}.md", page.as_markdown("figures"))
    write_text_atomic(folder / f"{name}.html", page.as_html())
    return folder / f"{name}.html"


def render(template: str, **values: object) -> str:
    """Return a template of this folder filled in; every value is escaped."""
    return environment().get_template(template).render(values)


@cache
def environment() -> jinja2.Environment:
    """Return the templates of this folder; the filter `embedded` turns a PNG file into the address of an image."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["embedded"] = lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return made


def folded(summary: str, lines: Iterable[str]) -> list[str]:
    """Return lines of Markdown that show only a summary until the reader opens them."""
    return [f"<details><summary>{escape(summary)}</summary>", "", *lines, "</details>", ""]


def escape(text: str) -> str:
    """Return text so that Markdown shows it as it is."""
    for character in "\\`*_[]<>":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def escape_cell(text: str) -> str:
    """Return text so that a cell of a Markdown table shows it as it is."""
    return escape(text).replace("|", "\\|")
