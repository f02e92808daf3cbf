"""The data sets that `mixform.datasets` offers: provenance, columns and checksums.

A new data set is one CSV file beside this module and one entry of `CATALOG`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table; a column with `levels` is a factor.

    Attributes
    ----------
    name : as in the header of the CSV file
    meaning : what was recorded, and its units
    levels : labels of the factor in the original order, empty for a number
    ordered : whether the order of the levels has a meaning
    """

    name: str
    meaning: str
    levels: tuple[str, ...] = ()
    ordered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the catalog records of one data set; see `DatasetInfo` for the fields."""

    title: str
    citation: str
    columns: tuple[Column, ...]
    n: int
    sha256: str


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_DAVIES = (
    "Davies, O. L. and Goldsmith, P. L. (eds) (1972). Statistical Methods in Research "
    "and Production, 4th ed. Oliver and Boyd, Edinburgh. Section {}."
)

#: Name -> entry; the CSV file of an entry is ``<name>.csv``.
CATALOG: dict[str, Entry] = {
    "pigs": Entry(
        title="Weight gain of six pigs in two groups",
        citation=(
            "Rosa, G. J. M. (2023). Mixed Models in Quantitative Genetics, lecture 3, "
            "example 1. Summer Institute in Statistical Genetics, Seattle."
        ),
        columns=(
            Column(name="pig", meaning="number of the pig, 1 to 6"),
            Column(
                name="group",
                meaning="experimental group",
                levels=_words("Control Treatment"),
            ),
            Column(name="gain", meaning="weight gain"),
        ),
        n=6,
        sha256="8c6cdc6915daaf678484d181f78491d1b5c4395840f8abb7435b2818498eaf0a",
    ),
    "sleepstudy": Entry(
        title="Reaction times in a sleep deprivation study",
        citation=(
            "Belenky, G., Wesensten, N. J., Thorne, D. R., Thomas, M. L., Sing, H. C., "
            "Redmond, D. P., Russo, M. B. and Balkin, T. J. (2003). Patterns of "
            "performance degradation and restoration during sleep restriction and "
            "subsequent recovery: a sleep dose-response study. Journal of Sleep "
            "Research 12, 1-12."
        ),
        columns=(
            Column(name="Reaction", meaning="average reaction time of the day (ms)"),
            Column(
                name="Days",
                meaning="day of the study, 0 to 9; sleep is restricted after day 2",
            ),
            Column(
                name="Subject",
                meaning="subject number",
                levels=_words(
                    "308 309 310 330 331 332 333 334 335 337 349 350 351 352 369 "
                    "370 371 372"
                ),
            ),
        ),
        n=180,
        sha256="0a002bec8be2fa9d40dbbf3d5038e614d113a4fd5bf8813f6f4271c3d6294675",
    ),
    "Dyestuff": Entry(
        title="Yield of dyestuff from six batches of an intermediate product",
        citation=_DAVIES.format("6.4"),
        columns=(
            Column(
                name="Batch",
                meaning="batch of the intermediate product (H-acid)",
                levels=_words("A B C D E F"),
            ),
            Column(name="Yield", meaning="yield of dyestuff (grams of standard color)"),
        ),
        n=30,
        sha256="4fa4c10f8db617562965d43014e2bb15df244f2cc0a1f83f47b3cd4ac40c17a1",
    ),
    "Dyestuff2": Entry(
        title="Constructed yields with more variation within batches than between",
        citation=(
            "Box, G. E. P. and Tiao, G. C. (1973). Bayesian Inference in Statistical "
            "Analysis. Addison-Wesley, Reading. Section 5.1.2."
        ),
        columns=(
            Column(name="Batch", meaning="batch", levels=_words("A B C D E F")),
            Column(name="Yield", meaning="constructed yield"),
        ),
        n=30,
        sha256="89a3b0b90c777b66b45cd1468dfebec3ec4b11928d226f674ec39087fe8db368",
    ),
    "Penicillin": Entry(
        title="Six samples of penicillin assayed on each of 24 plates",
        citation=_DAVIES.format("6.6"),
        columns=(
            Column(
                name="diameter",
                meaning="diameter of the zone of inhibition of growth (mm)",
            ),
            Column(
                name="plate",
                meaning="assay plate",
                levels=_words("a b c d e f g h i j k l m n o p q r s t u v w x"),
            ),
            Column(
                name="sample",
                meaning="sample of penicillin",
                levels=_words("A B C D E F"),
            ),
        ),
        n=144,
        sha256="9a26c574d34d1b6d5a6fcb31d296ffa65fe0339eea4b77f502d90b7f2b4eca24",
    ),
    "Pastes": Entry(
        title="Strength of a chemical paste by delivery batch and cask",
        citation=_DAVIES.format("6.5"),
        columns=(
            Column(name="strength", meaning="strength of the paste"),
            Column(
                name="batch",
                meaning="delivery batch",
                levels=_words("A B C D E F G H I J"),
            ),
            Column(
                name="cask", meaning="cask within the batch", levels=_words("a b c")
            ),
            Column(
                name="sample",
                meaning="batch and cask together",
                levels=tuple(f"{b}:{c}" for b in "ABCDEFGHIJ" for c in "abc"),
            ),
        ),
        n=60,
        sha256="1ccc038f2636384688511818410a6e5b4a3d61d2f23cda657e43b2596ffd1331",
    ),
    "cake": Entry(
        title="Breakage angle of chocolate cakes by recipe and baking temperature",
        citation=(
            "Cook, F. E. (1938). Chocolate cake, I. Optimum baking temperature. "
            "Master's thesis, Iowa State College."
        ),
        columns=(
            Column(
                name="replicate",
                meaning="replicate within the recipe, in order of time",
                levels=_words("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"),
            ),
            Column(name="recipe", meaning="recipe", levels=_words("A B C")),
            Column(
                name="temperature",
                meaning="baking temperature (degrees F), as ordered factor",
                levels=_words("175 185 195 205 215 225"),
                ordered=True,
            ),
            Column(name="angle", meaning="angle at which the cake broke (degrees)"),
            Column(name="temp", meaning="baking temperature (degrees F)"),
        ),
        n=270,
        sha256="51dd01508ef9ca1b11b61d3ee48005bbb2352fc6bcee5677b9d0791c721d029f",
    ),
    "Rail": Entry(
        title="Travel time of ultrasonic waves in six railway rails",
        citation=(
            "Devore, J. L. (2000). Probability and Statistics for Engineering and the "
            "Sciences, 5th ed. Duxbury, Boston. Example 10.10."
        ),
        columns=(
            Column(
                name="Rail",
                meaning="rail, ordered by mean travel time",
                levels=_words("2 5 1 6 3 4"),
                ordered=True,
            ),
            Column(
                name="travel",
                meaning="travel time of head-waves, less 36100 (nanoseconds)",
            ),
        ),
        n=18,
        sha256="76d59332d92121a2bcd20f8fde0f35c8616c5ab5d2cbffbc84809e909fdd3e9b",
    ),
    "ergoStool": Entry(
        title="Effort to rise from four types of stool",
        citation=(
            "Wretenberg, P., Arborelius, U. P. and Lindberg, F. (1993). The effects of "
            "a pneumatic stool and a one-legged stool on lower limb joint load and "
            "muscular activity during sitting and rising. Ergonomics 36, 519-535."
        ),
        columns=(
            Column(
                name="effort",
                meaning="effort required to rise from the stool (Borg scale)",
            ),
            Column(name="Type", meaning="type of stool", levels=_words("T1 T2 T3 T4")),
            Column(
                name="Subject",
                meaning="subject, ordered by mean effort",
                levels=_words("8 5 4 9 6 3 7 1 2"),
                ordered=True,
            ),
        ),
        n=36,
        sha256="4ed63e49073ae41d74cd97f7c492b86a279d42eb5e93d15437410894e25ec333",
    ),
    "Machines": Entry(
        title="Productivity of six workers on three brands of machine",
        citation=(
            "Milliken, G. A. and Johnson, D. E. (1992). Analysis of Messy Data, Volume "
            "I: Designed Experiments. Chapman and Hall, London. Page 285."
        ),
        columns=(
            Column(
                name="Worker",
                meaning="worker, ordered by greatest score",
                levels=_words("6 2 4 1 3 5"),
                ordered=True,
            ),
            Column(name="Machine", meaning="brand of machine", levels=_words("A B C")),
            Column(
                name="score",
                meaning="score for quantity and quality of components produced",
            ),
        ),
        n=54,
        sha256="f877bb5f21501cbc37d8c227c59da9ba3b4dad552fa224874af3cc01cdf6e9ad",
    ),
    "Oats": Entry(
        title="Split-plot experiment on varieties of oats and nitrogen",
        citation=(
            "Yates, F. (1935). Complex experiments. Supplement to the Journal of the "
            "Royal Statistical Society 2, 181-247."
        ),
        columns=(
            Column(
                name="Block",
                meaning="block, ordered by greatest yield of a subplot",
                levels=_words("VI V III IV II I"),
                ordered=True,
            ),
            Column(
                name="Variety",
                meaning="variety, on whole plots",
                levels=("Golden Rain", "Marvellous", "Victory"),
            ),
            Column(name="nitro", meaning="nitrogen applied to the subplot (cwt/acre)"),
            Column(
                name="yield", meaning="yield of the subplot (quarter lb per 1/80 acre)"
            ),
        ),
        n=72,
        sha256="162fd7d2193761b895c7e3ab05debd95dc49d401ffeaeae27802b4214a523e51",
    ),
    "Orthodont": Entry(
        title="Growth of an orthodontic distance in 27 children",
        citation=(
            "Potthoff, R. F. and Roy, S. N. (1964). A generalized multivariate "
            "analysis of variance model useful especially for growth curve problems. "
            "Biometrika 51, 313-326."
        ),
        columns=(
            Column(
                name="distance",
                meaning="pituitary to pterygomaxillary fissure on an X-ray image (mm)",
            ),
            Column(name="age", meaning="age (years)"),
            Column(
                name="Subject",
                meaning="child, ordered by mean distance within sex",
                levels=_words(
                    "M16 M05 M02 M11 M07 M08 M03 M12 M13 M14 M09 M15 M06 M04 M01 "
                    "M10 F10 F09 F06 F01 F05 F07 F02 F08 F03 F04 F11"
                ),
                ordered=True,
            ),
            Column(
                name="Sex", meaning="sex of the child", levels=_words("Male Female")
            ),
        ),
        n=108,
        sha256="910e1475611d26ae3af6d2499a876ff83c7e355491686eb8e3d074b2195c191a",
    ),
    "stroup": Entry(
        title="Split-plot design of SAS PROC MIXED, example 1",
        citation=(
            "Stroup, W. W. (1989). Predictable functions and prediction space in the "
            "mixed model procedure. In: Applications of Mixed Models in Agriculture "
            "and Related Disciplines, Southern Cooperative Series Bulletin 343, 39-48. "
            "Louisiana Agricultural Experiment Station, Baton Rouge."
        ),
        columns=(
            Column(
                name="Block", meaning="block of whole plots", levels=_words("1 2 3 4")
            ),
            Column(
                name="A", meaning="treatment on whole plots", levels=_words("1 2 3")
            ),
            Column(name="B", meaning="treatment on subplots", levels=_words("1 2")),
            Column(name="Y", meaning="response"),
        ),
        n=24,
        sha256="bfbed22f326a5377c5d203161fe29298937a31220431f688b4fee6af80474159",
    ),
}
