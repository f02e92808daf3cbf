"""A document of lines and tables as text, HTML and LaTeX, through `SimpleTable`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table of strings.

    Attributes
    ----------
    headers : of the columns, the first over the row labels
    rows : cells, first the label
    n_left : how many leading columns are aligned left; the others right
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_left: int = 1

    def table(self) -> Any:
        """Return statsmodels' SimpleTable of it."""
        # statsmodels takes a third of the time that mixform's import may take, and
        # only printing needs it.
        from statsmodels.iolib.table import SimpleTable  # noqa: PLC0415

        align = "l" * self.n_left + "r" * (len(self.headers) - self.n_left)
        text = {
            "data_aligns": align,
            "header_align": "r",
            "table_dec_above": None,
            "table_dec_below": None,
            "header_dec_below": None,
            "colsep": " ",
            "row_pre": " ",
            "data_fmts": ["%s"] * len(self.headers),
        }
        page = {"data_aligns": align, "data_fmts": ["%s"] * len(self.headers)}
        latex = {**page, "strip_backslash": False}
        return SimpleTable(
            [list(row) for row in self.rows],
            headers=list(self.headers),
            txt_fmt=text,
            html_fmt=page,
            ltx_fmt=latex,
        )

    def as_text(self) -> str:
        """Return it as aligned text; headers over left columns are aligned left."""
        lines = self.table().as_text().split("\n")
        widths = [
            max(len(row[c]) for row in (self.headers, *self.rows))
            for c in range(len(self.headers))
        ]
        header = [
            text.ljust(width) if c < self.n_left else text.rjust(width)
            for c, (text, width) in enumerate(zip(self.headers, widths, strict=True))
        ]
        lines[0] = " " + " ".join(header)
        return "\n".join(line.rstrip() for line in lines)


Section = str | Grid


@dataclass(frozen=True, slots=True)
class Summary:
    """A printed model: text by ``str`` and `as_text`, `as_html`, `as_latex`.

    Attributes
    ----------
    sections : paragraphs and tables in order
    """

    sections: tuple[Section, ...]

    def as_text(self) -> str:
        """Return it as plain text."""
        return "\n".join(
            section.as_text() if isinstance(section, Grid) else section
            for section in self.sections
        )

    def as_html(self) -> str:
        """Return it as an HTML fragment."""
        parts = [
            section.table().as_html()
            if isinstance(section, Grid)
            else f"<pre>{escape(section)}</pre>"
            for section in self.sections
            if section
        ]
        return "\n".join(parts)

    def as_latex(self) -> str:
        """Return it as LaTeX: tabular environments and verbatim paragraphs."""
        parts = [
            _tabular(section)
            if isinstance(section, Grid)
            else f"\\begin{{verbatim}}\n{section}\n\\end{{verbatim}}"
            for section in self.sections
            if section
        ]
        return "\n".join(parts)

    def __str__(self) -> str:
        return self.as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.as_html()


def _tabular(grid: Grid) -> str:
    safe = Grid(
        headers=tuple(map(_escape_latex, grid.headers)),
        rows=tuple(tuple(map(_escape_latex, row)) for row in grid.rows),
        n_left=grid.n_left,
    )
    return safe.table().as_latex_tabular()


def _escape_latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
    special |= {sign: "\\" + sign for sign in "&%$#_{}"}
    special |= {"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"}
    return "".join(special.get(sign, sign) for sign in text)


def column_grid(
    headers: Sequence[str], columns: Sequence[Sequence[str]], n_left: int = 1
) -> Grid:
    """Return a grid from its columns."""
    rows = tuple(zip(*columns, strict=True))
    return Grid(headers=tuple(headers), rows=rows, n_left=n_left)
