"""Translate R's spellings into the ones that formulaic reads.

STRING in, STRING out: ``I(x^2)`` becomes ``I(x**2)``, ``factor(x)`` becomes ``C(x)``,
column names that formulaic would misread become aliases. Nothing else changes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mixform.formula.names import alias
from mixform.formula.scan import CLOSING, QUOTES, closing_bracket

#: R function -> the function that formulaic, or `design.model_matrix`, knows.
R_CALLS = {
    "factor": "C",
    "as.factor": "C",
    "as.numeric": "as_numeric",
    "as.integer": "as_numeric",
}
R_WORDS = {"TRUE": "True", "FALSE": "False"}
CONSTANTS = {"True", "False", "None"}
MODULES = {"np", "contr"}
_NAME = re.compile(r"(?<![\w.])(?:[^\W\d]|\.(?=[^\W\d]))[\w.]*")
_ASSIGNED = re.compile(r"\s*=(?!=)")


@lru_cache(maxsize=256)
def to_formulaic(text: str) -> str:
    """Return the text in formulaic's grammar.

    Examples
    --------
    >>> to_formulaic("I(x^2) + factor(g) + poly(x, 2, raw=TRUE)")
    'I(x**2) + C(g) + poly(x, 2, raw=True)'
    """
    return _translate(text, inside_call=False)


def _translate(text: str, *, inside_call: bool) -> str:
    out: list[str] = []
    position = 0
    while position < len(text):
        sign = text[position]
        name = _NAME.match(text, position)
        if sign in QUOTES:
            end = text.find(sign, position + 1)
            end = len(text) if end < 0 else end + 1
            quoted = text[position:end]
            out.append(alias(quoted.strip("`")) if sign == "`" else quoted)
        elif name:
            end = name.end()
            is_call = text[end:].lstrip()[:1] == "("
            is_option = inside_call and _ASSIGNED.match(text, end)
            if is_call:
                out.append(R_CALLS.get(name[0], name[0]))
            else:
                out.append(name[0] if is_option else _word(name[0], inside_call))
            if is_call:
                end = text.index("(", end)
                close = closing_bracket(text, end, len(text))
                inner = _translate(text[end + 1 : close], inside_call=True)
                out.append(f"({inner})")
                end = close + 1
        elif sign in CLOSING:
            end = closing_bracket(text, position, len(text)) + 1
            inner = _translate(text[position + 1 : end - 1], inside_call=inside_call)
            out.append(sign + inner + CLOSING[sign])
        else:
            end = position + 1
            out.append("**" if sign == "^" and inside_call else sign)
        position = end
    return "".join(out)


def _word(name: str, inside_call: bool) -> str:
    """Return a word that is not called: a column, except for constants in a call."""
    word = R_WORDS.get(name, name)
    if inside_call and (word in CONSTANTS or _is_member(word)):
        return word
    return alias(name)


def _is_member(word: str) -> bool:
    """Whether the word is a member of a module: contr.sum."""
    module, _, member = word.partition(".")
    return bool(member) and module in MODULES
