"""A page of sections, written as one HTML file with everything in it, and as Markdown with its pictures beside it."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from cifar_lightning.files import write_bytes_atomic, write_text_atomic
from cifar_lightning.report.document import document, embedded

__all__ = ["Page", "Picture", "Section", "Table", "Text", "write_page"]


@dataclass(frozen=True)
class Text:
    """A paragraph; or, when `code`, lines that are shown as they are."""

    text: str
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column names the row. A folded one opens when somebody asks for it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure, what it shows for those who cannot see it, and the numbers behind it."""

    name: str
    figure: Figure
    alt: str
    numbers: Table | None = None

    def png(self) -> bytes:
        """The figure as a file."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png")
        return file.getvalue()


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: Sequence[Text | Table | Picture]


@dataclass(frozen=True)
class Page:
    """A title and sections."""

    title: str
    sections: Sequence[Section]
    _png: dict[str, bytes] = field(default_factory=dict, init=False)

    def pictures(self) -> dict[str, bytes]:
        """PNG files by name; each figure is drawn once."""
        for section in self.sections:
            for part in section.parts:
                if isinstance(part, Picture) and part.name not in self._png:
                    self._png[part.name] = part.png()
        return self._png

    def as_html(self) -> str:
        """One file that needs no other and no network."""
        links = "".join(
            f'<li><a href="#s{i}">{html.escape(section.title)}</a></li>' for i, section in enumerate(self.sections)
        )
        body = "".join(self._section_html(i, section) for i, section in enumerate(self.sections))
        return document(self.title, f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>{body}</main>')

    def _section_html(self, index: int, section: Section) -> str:
        parts = []
        for part in section.parts:
            if isinstance(part, Text):
                text = html.escape(part.text)
                parts.append(f'<pre tabindex="0">{text}</pre>' if part.code else f"<p>{text}</p>")
            elif isinstance(part, Table):
                parts.append(folded_html(part.caption, part) if part.folded else table_html(part))
            else:
                png = self.pictures()[part.name]
                width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of the PNG header
                alt = html.escape(part.alt, quote=True)
                numbers = folded_html("The numbers", part.numbers) if part.numbers else ""
                parts.append(
                    f'<figure><img src="{embedded(png)}" alt="{alt}" width="{width}" height="{height}">'
                    f"{numbers}</figure>"
                )
        return f'<section><h2 id="s{index}">{html.escape(section.title)}</h2>\n{"".join(parts)}</section>\n'

    def as_markdown(self, folder: str) -> str:
        """The same as Markdown; the pictures are looked for in the folder, relative to the file."""
        lines = [f"# {escape(self.title)}", ""]
        for section in self.sections:
            lines += [f"## {escape(section.title)}", ""]
            for part in section.parts:
                if isinstance(part, Text):
                    lines += ["```yaml", part.text.rstrip("\n"), "```", ""] if part.code else [escape(part.text), ""]
                elif isinstance(part, Table):
                    lines += folded_markdown(part.caption, part) if part.folded else table_markdown(part)
                else:
                    lines += [f"![{escape(part.alt)}]({folder}/{part.name}.png)", ""]
                    if part.numbers:
                        lines += folded_markdown("The numbers", part.numbers)
        return "\n".join(lines).rstrip("\n") + "\n"


def write_page(page: Page, folder: Path, name: str) -> Path:
    """Writes <name>.html, <name>.md and figures/.

    Returns:
        The HTML file.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for picture, png in page.pictures().items():
        write_bytes_atomic(folder / "figures" / f"{picture}.png", png)
    write_text_atomic(folder / f"{name}.md", page.as_markdown("figures"))
    write_text_atomic(folder / f"{name}.html", page.as_html())
    return folder / f"{name}.html"


def folded_html(summary: str, table: Table) -> str:
    """A table that shows its summary alone until it is opened."""
    shown = table_html(table, captioned=summary != table.caption)
    return f"<details><summary>{html.escape(summary)}</summary>{shown}</details>"


def folded_markdown(summary: str, table: Table) -> list[str]:
    """The same in Markdown."""
    shown = table_markdown(table, captioned=summary != table.caption)
    return [f"<details><summary>{html.escape(summary)}</summary>", "", *shown, "</details>", ""]


def table_html(table: Table, captioned: bool = True) -> str:
    """A table that scrolls on its own where it is wider than the screen."""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>{"".join(f"<td>{html.escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in table.rows
    )
    name = html.escape(table.caption, quote=True)
    caption = f"<caption>{name}</caption>" if captioned else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def table_markdown(table: Table, captioned: bool = True) -> list[str]:
    """The lines of a table, under its caption."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape(cell).replace("|", "\\|") for cell in cells) + " |"

    rule = line(["---", *("---:" for _ in table.header[1:])])
    caption = [escape(table.caption), ""] if captioned else []
    return [*caption, line(table.header), rule, *(line(row) for row in table.rows), ""]


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    for character in "\\`*_[]<>":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
