"""The frame of every HTML page: one file that needs no other and no network."""

from __future__ import annotations

import base64
import html

__all__ = ["document", "embedded"]

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; max-width: 62rem;
  padding: 1rem; overflow-wrap: break-word; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; padding-bottom: .25rem; }
figure { margin: 1rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; }
figcaption, caption { color: #4a4a4a; font-size: .9rem; text-align: left; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f5f5f5; padding: .75rem; overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; color: #0b5394; padding: .25rem 0; }
nav ul { columns: 14rem; padding-left: 1.2rem; }
a { color: #0b5394; }
@media print { body { max-width: none; } details > * { display: block; } nav { display: none; } }
"""


def document(title: str, body: str, style: str = "") -> str:
    """A whole page.

    Args:
        title: plain text, shown as the heading too.
        body: HTML under the heading, in which everything that is not ours has been escaped.
        style: more rules of CSS.
    """
    title = html.escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<style>{STYLE}{style}</style></head>\n<body><h1>{title}</h1>\n{body}</body></html>\n"
    )


def embedded(png: bytes) -> str:
    """The address of a picture that lies in the page itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
