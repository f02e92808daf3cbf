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

    def as_text(self) -> str:
        """Return it as aligned text; headers over left columns are aligned left."""
        align = "l" * self.n_left + "r" * (len(self.headers) - self.n_left)
        table = _simple_table(
            [list(row) for row in self.rows],
            headers=list(self.headers),
            txt_fmt={
                "data_aligns": align,
                "header_align": "r",
                "table_dec_above": None,
                "table_dec_below": None,
                "header_dec_below": None,
                "colsep": " ",
                "row_pre": " ",
            },
        )
        lines = table.as_text().split("\n")
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

    def as_html(self) -> str:
        """Return it as an HTML table."""
        rows = [[escape(cell) for cell in row] for row in self.rows]
        headers = [escape(header) for header in self.headers]
        return _simple_table(rows, headers=headers).as_html()

    def as_latex(self) -> str:
        """Return it as a tabular; the first column is left, the others right."""
        rows = [[_escape_latex(cell) for cell in row] for row in self.rows]
        headers = [_escape_latex(header) for header in self.headers]
        latex: dict[str, Any] = {"data_aligns": "r", "header_align": "r"}
        latex |= {"stub_align": "l", "replacements": {}}
        if self.n_left == 0:
            return _simple_table(rows, headers, ltx_fmt=latex).as_latex_tabular()
        cells, stubs = [row[1:] for row in rows], [row[0] for row in rows]
        table = _simple_table(cells, headers[1:], stubs, ltx_fmt=latex)
        corner = table[0][0]  # SimpleTable leaves it empty
        corner.data, corner.datatype = headers[0], "stub"
        return table.as_latex_tabular()


def _simple_table(
    rows: list[list[str]],
    headers: list[str],
    stubs: list[str] | None = None,
    **formats: Any,
) -> Any:
    # statsmodels takes a fifth of the time that mixform's import may take, and only
    # printing needs it.
    from statsmodels.iolib.table import SimpleTable  # noqa: PLC0415

    return SimpleTable(rows, headers=headers, stubs=stubs, **formats)


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
            section.as_html()
            if isinstance(section, Grid)
            else f"<pre>{escape(section)}</pre>"
            for section in self.sections
            if section
        ]
        return "\n".join(parts)

    def as_latex(self) -> str:
        """Return it as LaTeX: tabular environments and verbatim paragraphs."""
        parts = [
            section.as_latex()
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
