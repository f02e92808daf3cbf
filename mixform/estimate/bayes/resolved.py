"""Which prior each standard deviation and correlation of a design has.

Goes in: what the user gave, by label. Comes out: the priors of every random term and
of the residual, scales filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from mixform._typing import Vector
from mixform.design import Design, RandomBlock
from mixform.design.random import block_labels
from mixform.errors import DesignError, suggest
from mixform.priors import LKJ, Flat, HalfT, InverseWishart, PriorOfSD, half_t, lkj

#: Residual standard deviations of the response that the default scale stands for.
WIDTH = 2.5
RESIDUAL = "residual"
#: Standard deviations from zero from which a covariate should be centered.
FAR = 10.0
#: Random terms whose coefficients all have a variance of their own.
SUPPORTED = ("us", "diag", "iid")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TermPrior:
    """The priors of one random term.

    Attributes
    ----------
    label : of the term
    columns : (k,) its coefficients
    sds : (k,) of the standard deviations; empty where the covariance has one
    correlation : of the correlation matrix; None if there are no correlations
    covariance : of all variances and covariances at once; None if each has its own
    coupled : whether there are correlations
    """

    label: str
    columns: tuple[str, ...]
    sds: tuple[PriorOfSD, ...]
    correlation: LKJ | None
    covariance: InverseWishart | Flat | None
    coupled: bool

    @property
    def k(self) -> int:
        """Number of coefficients."""
        return len(self.columns)

    @property
    def n_correlations(self) -> int:
        """Number of correlations."""
        return self.k * (self.k - 1) // 2 if self.coupled else 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters: standard deviations, then correlations."""
        names = [f"sd({self.label}: {name})" for name in self.columns]
        if self.coupled:
            names += [
                f"cor({self.label}: {self.columns[c]}, {self.columns[r]})"
                for c in range(self.k)
                for r in range(c + 1, self.k)
            ]
        return tuple(names)

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What has which prior, in words."""
        if self.covariance is not None:
            return [(f"cov({self.label})", str(self.covariance))]
        pairs = zip(self.names, self.sds, strict=False)
        out = [(name, str(prior)) for name, prior in pairs]
        if self.correlation is not None:
            out.append((f"cor({self.label})", str(self.correlation)))
        return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Priors:
    """The priors of a model, in the user's units.

    Attributes
    ----------
    terms : one for each random term
    residual : of the residual standard deviation
    """

    terms: tuple[TermPrior, ...]
    residual: PriorOfSD

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What has which prior: pairs of the parameter and the prior in words."""
        lines = [line for term in self.terms for line in term.lines]
        return [*lines, ("sigma", str(self.residual)), ("fixed effects", "flat")]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.lines)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in self.lines)


def resolve_priors(design: Design, given: object, size: float) -> Priors:
    """Return the prior of everything, defaults filled in.

    Parameters
    ----------
    given : label of a random term, ``"g[x]"`` of one of its coefficients, or
        "residual" -> a prior or a list of them; None for the defaults
    size : residual standard deviation of the response from the fixed part

    Raises
    ------
    DesignError : an unknown label; a prior that does not fit what it is given for
    """
    labels = block_labels(design.blocks)
    read = _by_label(given, design, labels)
    terms = [
        _term_prior(label, block, read, WIDTH * size / _sizes(block))
        for label, block in zip(labels, design.blocks, strict=True)
    ]
    found = read.get(RESIDUAL, [half_t()])
    if len(found) != 1 or not _is_of_sd(found[0]):
        raise DesignError(
            f"The residual has one prior, of its standard deviation; given: "
            f"{', '.join(map(str, found))}.",
            hint="Give half_t, flat or inverse_wishart of one variance.",
        )
    return Priors(terms=tuple(terms), residual=_filled(found[0], WIDTH * size))


def uncentered(design: Design, priors: Priors) -> list[tuple[str, str, float]]:
    """Return covariates whose zero, which priors are about, is far from the data.

    Slopes that vary make intercepts at zero vary a lot, with a correlation next to -1
    or 1: priors that have little of either are priors of slopes that vary little.

    Returns
    -------
    term, covariate, and its mean over its standard deviation, above `FAR`
    """
    out: list[tuple[str, str, float]] = []
    for term, block in zip(priors.terms, design.blocks, strict=True):
        mean, spread = np.abs(block.design.mean(axis=0)), block.design.std(axis=0)
        constant = spread <= 1e-8 * mean
        free = isinstance(term.covariance, Flat)
        if free or not term.coupled or not np.any(constant):
            continue
        with np.errstate(divide="ignore"):
            ratio = np.where(constant, 0.0, mean / spread)
        out += [
            (term.label, term.columns[j], float(ratio[j]))
            for j in np.flatnonzero(ratio > FAR)
        ]
    return out


def _sizes(block: RandomBlock) -> Vector:
    """Return the standard deviation of each covariate; of a constant its size."""
    size = np.sqrt(np.mean(block.design**2, axis=0))
    spread = block.design.std(axis=0)
    return np.where(spread > 1e-8 * size, spread, size)


def _by_label(
    given: object, design: Design, labels: Sequence[str]
) -> dict[str, list[Any]]:
    """Return lists of priors by label.

    Raises
    ------
    DesignError : no mapping, an unknown label, or no prior
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise DesignError(
            f"prior is a {type(given).__name__}, not a mapping.",
            hint='Write prior={"Subject": mf.priors.half_t(3, 50.0)}.',
        )
    known = [*labels]
    for label, block in zip(labels, design.blocks, strict=True):
        known += [f"{label}[{name}]" for name in block.columns]
    known.append(RESIDUAL)
    out: dict[str, list[Any]] = {}
    for key, value in cast("Mapping[object, object]", given).items():
        label = RESIDUAL if str(key).lower() == RESIDUAL else str(key)
        if label not in known:
            raise DesignError(
                f"prior names {label!r}, which is no random term.",
                hint=suggest(label, known, "Labels"),
            )
        many = isinstance(value, Sequence) and not isinstance(value, str)
        out[label] = list(cast("Sequence[Any]", value)) if many else [value]
        for one in out[label]:
            if not isinstance(one, HalfT | LKJ | InverseWishart | Flat):
                raise DesignError(
                    f"The prior of {label!r} is {one!r}, a {type(one).__name__}.",
                    hint="Priors are half_t, lkj, inverse_wishart and flat of "
                    "mixform.priors.",
                )
    return out


def _term_prior(
    label: str, block: RandomBlock, read: Mapping[str, list[Any]], scales: Vector
) -> TermPrior:
    """Return the priors of one term; scales (k,) are those of half_t by default."""
    k = block.k
    coupled = block.term.structure != "diag" and k > 1
    own: list[PriorOfSD | None] = [None] * k
    for j, name in enumerate(block.columns):
        for prior in read.get(f"{label}[{name}]", []):
            if not _is_of_sd(prior) or own[j] is not None:
                raise DesignError(
                    f"{label}[{name}] has one prior, of a standard deviation; got "
                    f"{prior}.",
                    hint=f"Priors of correlations and covariances belong to {label!r}.",
                )
            own[j] = prior
    general: PriorOfSD | None = None
    correlation: LKJ | None = None
    covariance: InverseWishart | Flat | None = None
    for prior in read.get(label, []):
        twice = correlation if isinstance(prior, LKJ) else general or covariance
        if twice is not None:
            raise DesignError(
                f"{label!r} has two priors of the same: {twice}, {prior}."
            )
        if isinstance(prior, LKJ):
            correlation = prior
        elif k > 1 and _is_of_covariance(prior):
            covariance = prior
        else:
            general = prior
    _require_fit(label, block, coupled, correlation, covariance, general)
    if covariance is not None:
        if correlation is not None or any(prior is not None for prior in own):
            raise DesignError(
                f"{label!r} has the prior {covariance} of its whole covariance; no "
                "other can stand beside it."
            )
        return TermPrior(
            label=label, columns=block.columns, sds=(), correlation=None,
            covariance=covariance, coupled=True,
        )  # fmt: skip
    sds = [
        _filled(prior or general or half_t(), float(scale))
        for prior, scale in zip(own, scales, strict=True)
    ]
    return TermPrior(
        label=label,
        columns=block.columns,
        sds=tuple(sds),
        correlation=(correlation or lkj()) if coupled else None,
        covariance=None,
        coupled=coupled,
    )


def _require_fit(
    label: str,
    block: RandomBlock,
    coupled: bool,
    correlation: LKJ | None,
    covariance: InverseWishart | Flat | None,
    general: PriorOfSD | None,
) -> None:
    """Refuse priors of correlations where there are none, and wrong sizes."""
    k = block.k
    if not coupled and (correlation is not None or covariance is not None):
        raise DesignError(
            f"{label!r} has no correlations; {correlation or covariance} needs some.",
            hint=f'Give priors of single standard deviations, "{label}[...]".',
        )
    for prior in (covariance, general):
        wrong = isinstance(prior, InverseWishart) and len(prior.scale) != k
        if wrong and isinstance(prior, InverseWishart):
            size = len(prior.scale)
            raise DesignError(
                f"The prior {prior} of {label!r} is of {size} coefficients; the term "
                f"has {k}: {', '.join(block.columns)}.",
            )


def _is_of_covariance(prior: object) -> bool:
    """Whether a prior given for a term with several coefficients is of all of them."""
    if isinstance(prior, Flat):
        return prior.on == "covariance"
    return isinstance(prior, InverseWishart)


def _is_of_sd(prior: object) -> bool:
    if isinstance(prior, InverseWishart):
        return len(prior.scale) == 1
    return isinstance(prior, HalfT | Flat)


def _filled(prior: PriorOfSD, scale: float) -> PriorOfSD:
    if isinstance(prior, HalfT) and prior.scale is None:
        return replace(prior, scale=scale)
    return prior
