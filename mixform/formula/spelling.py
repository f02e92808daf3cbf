"""Translate R's spellings into the ones that formulaic reads.

STRING in, STRING out: ``I(x^2)`` becomes ``I(x**2)``, ``factor(x)`` becomes ``C(x)``,
dotted column names inside a call are back-quoted. Nothing else changes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mixform.formula.scan import CLOSING, QUOTES, closing_bracket

#: R function -> the function that formulaic, or `design.model_matrix`, knows.
R_CALLS = {"factor": "C", "as.factor": "C", "as.numeric": "I"}
R_WORDS = {"TRUE": "True", "FALSE": "False"}
_NAME = re.compile(r"(?<![\w.])([A-Za-z_.][\w.]*)")


@lru_cache(maxsize=256)
def to_formulaic(text: str) -> str:
    """Return the text in formulaic's grammar.

    Examples
    --------
    >>> to_formulaic("I(x^2) + factor(g) + log(body.mass) + body.mass^1")
    'I(x**2) + C(g) + log(`body.mass`) + body.mass^1'
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
            out.append(text[position:end])
        elif name:
            end = name.end()
            is_call = text[end:].lstrip()[:1] == "("
            out.append(_word(name[0], is_call=is_call, inside_call=inside_call))
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


def _word(name: str, *, is_call: bool, inside_call: bool) -> str:
    if is_call:
        return R_CALLS.get(name, name)
    if not inside_call:
        return name
    if "." in name.strip(".") and name.split(".")[0] not in {"np", "contr"}:
        return f"`{name}`"
    return R_WORDS.get(name, name)
