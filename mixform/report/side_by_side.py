"""The page that shows a fit beside the same model in lme4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from mixform.report.layout import Section, Summary, column_grid
from mixform.report.numbers import format_column, format_fixed, format_p


def side_by_side(
    heading: str,
    table: pd.DataFrame,
    varcorr: pd.DataFrame,
    facts: pd.DataFrame,
    notes: Sequence[str],
) -> Summary:
    """Lay the comparison out.

    Parameters
    ----------
    heading : what was compared
    table : ``estimate, se, df, p_value``, each followed by lme4's, and ``difference``
        in standard errors, by coefficient
    varcorr : ``grp, var1, var2, sdcor, sdcor_lme4, difference``
    facts : ``mixform, lme4, difference`` of the criterion and the seconds
    notes : what a reader must know besides the numbers
    """
    sections: list[Section] = [heading, ""]
    if len(table):
        sections += ["Fixed effects:", _fixed(table), ""]
    sections += ["Standard deviations and correlations:", _random(varcorr), ""]
    sections.append(_facts(facts))
    if notes:
        sections += ["", "\n".join(f"Note: {note}" for note in notes)]
    return Summary(tuple(sections))


def _pair(table: Mapping[str, pd.Series] | pd.DataFrame, name: str) -> list[list[str]]:
    """Return our column and lme4's at one precision."""
    ours, theirs = table[name].tolist(), table[f"{name}_lme4"].tolist()
    return [
        _blank(format_column(ours, like=theirs)),
        _blank(format_column(theirs, like=ours)),
    ]


def _blank(texts: Sequence[str]) -> list[str]:
    return ["-" if text == "NaN" else text for text in texts]


def _difference(values: pd.Series) -> list[str]:
    return ["-" if value != value else f"{value:.1e}" for value in values]


def _fixed(table: pd.DataFrame) -> Section:
    columns = [
        [str(name) for name in table.index],
        *_pair(table, "estimate"),
        _difference(table["difference"]),
        *_pair(table, "se"),
        _blank(format_fixed(table["df"].tolist(), 2)),
        _blank(format_fixed(table["df_lme4"].tolist(), 2)),
        _blank([format_p(p) for p in table["p_value"]]),
        _blank([format_p(p) for p in table["p_value_lme4"]]),
    ]
    headers = ["", "Estimate", "lme4", "diff./SE", "Std. Error", "lme4"]
    headers += ["df", "lmerTest", "Pr(>|t|)", "lmerTest"]
    return column_grid(headers, columns)


def _random(table: pd.DataFrame) -> Section:
    names = [
        " ".join(name for name in pair if isinstance(name, str))
        for pair in zip(table["var1"], table["var2"], strict=True)
    ]
    columns = [
        table["grp"].tolist(),
        names,
        *_pair(table, "sdcor"),
        _difference(table["difference"]),
    ]
    return column_grid(["Groups", "Name", "mixform", "lme4", "diff."], columns, 2)


def _facts(facts: pd.DataFrame) -> Section:
    texts: dict[str, list[str]] = {"mixform": [], "lme4": []}
    for name, row in facts.iterrows():
        decimals = 3 if name == "Seconds" else 6
        for column, cells in texts.items():
            value = float(row[column])
            cells.append("-" if value != value else f"{value:.{decimals}f}")
    columns = [
        [str(name) for name in facts.index],
        texts["mixform"],
        texts["lme4"],
        _difference(facts["difference"]),
    ]
    return column_grid(["", "mixform", "lme4", "diff."], columns)
