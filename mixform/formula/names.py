"""Column names that formulaic or Python would misread, under safe aliases.

Formulaic evaluates calls as Python, in which ``log(class)``, ``log(body.mass)`` and
``C(C)`` do not mean what R's users mean. Such a column is given to formulaic under an
alias, and named as the user named it in everything that is read afterwards.
"""

from __future__ import annotations

import re
from keyword import iskeyword
from unicodedata import normalize

import numpy as np
from formulaic.transforms import TRANSFORMS

#: Functions of R that formulaic does not define; all elementwise.
FUNCTIONS = {
    name: getattr(np, name)
    for name in ("sqrt", "log1p", "expm1", "sin", "cos", "tan", "tanh", "abs", "round")
}
#: Names that formulas call; a column of the same name must not hide the function.
CALLED = frozenset({*TRANSFORMS, *FUNCTIONS, "as_numeric", "legendre"})
_ALIAS = re.compile(r"_column_((?:[0-9a-f]{2})+)_")


def alias(column: str) -> str:
    """Return the name under which formulaic knows a column.

    Examples
    --------
    >>> alias("days")
    'days'
    >>> alias("a.b")
    '_column_612e62_'
    """
    plain = column.isidentifier() and not iskeyword(column)
    # Python reads identifiers in the form NFKC: a micro sign as the letter mu.
    if plain and column not in CALLED and normalize("NFKC", column) == column:
        return column
    return f"_column_{column.encode().hex()}_"


def readable(text: str) -> str:
    """Return the text with aliases replaced by the names of the columns.

    Names that are not plain words are back-quoted inside calls, as formulaic does.

    Examples
    --------
    >>> readable("log(_column_612e62_):_column_612e62_")
    'log(`a.b`):a.b'
    """

    def column(match: re.Match[str]) -> str:
        name = bytes.fromhex(match[1]).decode()
        before = text[: match.start()]
        inside_call = before.count("(") > before.count(")")
        return f"`{name}`" if inside_call and not name.isidentifier() else name

    return _ALIAS.sub(column, text) if "_column_" in text else text
