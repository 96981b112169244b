"""A page of sections, written as one HTML file with everything in it, and as Markdown with its pictures beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from cifar_lightning.files import write_bytes_atomic, write_text_atomic

__all__ = ["Page", "Picture", "Section", "Table", "Text", "write_page"]

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; max-width: 62rem;
  padding: 1rem; overflow-wrap: break-word; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; padding-bottom: .25rem; }
figure { margin: 1rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; }
figcaption, caption { color: #4a4a4a; font-size: .9rem; text-align: left; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f5f5f5; padding: .75rem; overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; color: #0b5394; padding: .25rem 0; }
nav ul { columns: 14rem; padding-left: 1.2rem; }
a { color: #0b5394; }
@media print { body { max-width: none; } details > * { display: block; } nav { display: none; } }
"""


@dataclass(frozen=True)
class Text:
    """A paragraph; or, when `code`, lines that are shown as they are."""

    text: str
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


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
        title = html.escape(self.title)
        links = "".join(
            f'<li><a href="#s{i}">{html.escape(section.title)}</a></li>' for i, section in enumerate(self.sections)
        )
        body = "".join(self._section_html(i, section) for i, section in enumerate(self.sections))
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<link rel="icon" href="data:,">'
            f'<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n<nav aria-label="Sections"><ul>{links}</ul></nav>'
            f"\n<main>{body}</main></body></html>\n"
        )

    def _section_html(self, index: int, section: Section) -> str:
        parts = []
        for part in section.parts:
            if isinstance(part, Text):
                text = html.escape(part.text)
                parts.append(f'<pre tabindex="0">{text}</pre>' if part.code else f"<p>{text}</p>")
            elif isinstance(part, Table):
                parts.append(table_html(part))
            else:
                png = self.pictures()[part.name]
                image = base64.b64encode(png).decode()
                width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of the PNG header
                alt = html.escape(part.alt, quote=True)
                numbers = f"<details><summary>The numbers</summary>{table_html(part.numbers)}</details>"
                parts.append(
                    f'<figure><img src="data:image/png;base64,{image}" alt="{alt}" width="{width}" height="{height}">'
                    f"{numbers if part.numbers else ''}</figure>"
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
                    lines += table_markdown(part)
                else:
                    lines += [f"![{escape(part.alt)}]({folder}/{part.name}.png)", ""]
                    if part.numbers:
                        lines += ["<details><summary>The numbers</summary>", "", *table_markdown(part.numbers)]
                        lines += ["</details>", ""]
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


def table_html(table: Table | None) -> str:
    """A table that scrolls on its own where it is wider than the screen."""
    if table is None:
        return ""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>{"".join(f"<td>{html.escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in table.rows
    )
    caption = html.escape(table.caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def table_markdown(table: Table) -> list[str]:
    """The lines of a table, and its caption."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape(cell).replace("|", "\\|") for cell in cells) + " |"

    rule = line(["---", *("---:" for _ in table.header[1:])])
    return [escape(table.caption), "", line(table.header), rule, *(line(row) for row in table.rows), ""]


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    for character in "\\`*_[]<>":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
