"""Pages of sections: one HTML file that contains everything, and Markdown with its pictures beside it."""

from cifar_lightning.pages.page import Block, Page, Picture, Section, Table, Text, render, write_page

__all__ = ["Block", "Page", "Picture", "Section", "Table", "Text", "render", "write_page"]
