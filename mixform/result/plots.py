"""`Result.plot`: figures of a fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mixform.errors import InferenceError, suggest
from mixform.report import plots
from mixform.report.plots import Axes

if TYPE_CHECKING:
    from mixform.result.lm_list import LmList
    from mixform.result.result import Result

KINDS = ("zeta", "density", "pairs")


class Plots:
    """Figures of one model, by matplotlib (extra ``plot``); each returns its axes.

    Parameters
    ----------
    model : the fitted model
    """

    def __init__(self, model: Result) -> None:
        self._model = model

    def residuals(self, kind: str = "studentized", ax: Axes = None) -> Axes:
        """Draw residuals against fitted values; kinds as of `Result.residuals`."""
        values = self._model.residuals(kind)  # type: ignore[arg-type]
        return plots.draw_residuals(self._model.fittedvalues, values, ax)

    def qq(self, kind: str = "studentized", ax: Axes = None) -> Axes:
        """Draw residuals against normal quantiles."""
        return plots.draw_qq(self._model.residuals(kind), ax)  # type: ignore[arg-type]

    def caterpillar(
        self, term: str | Sequence[str] | None = None, level: float = 0.95
    ) -> Axes:
        """Draw random effects in order, with their conditional limits."""
        return plots.draw_caterpillar(self._model.caterpillar(term, level))

    def profile(
        self,
        parameters: str | Sequence[str] | None = None,
        kind: str = "zeta",
        *,
        level: float = 0.95,
        progress: bool | None = None,
    ) -> Axes:
        """Draw the profile of parameters.

        Parameters
        ----------
        kind : "zeta", straight where the shape is normal; "density"; or "pairs",
            traces of every two parameters
        level : of the limits that are marked
        """
        if kind not in KINDS:
            raise InferenceError(
                f"Unknown kind {kind!r} of profile plot.",
                hint=suggest(str(kind), KINDS, "Kinds"),
            )
        found = self._model.profile(parameters, progress=progress)
        if kind == "density":
            return plots.draw_densities(found.parameters, found.density)
        if kind == "pairs":
            return plots.draw_pairs(found.parameters, found.pairs)
        return plots.draw_zeta(found.to_frame(), found.conf_int(level))

    def means(
        self, specs: object, *, by: object = None, ax: Axes = None, **options: Any
    ) -> Axes:
        """Draw marginal means with their limits; arguments as of `Result.emmeans`."""
        found = self._model.emmeans(specs, by=by, **options)
        return plots.draw_means(
            found.conf_int(),
            [str(name) for name in found.estimates.labels],
            found.estimates.by,
            ax,
        )


class SubjectPlots:
    """Figures of the regressions of subjects, by matplotlib (extra ``plot``).

    Parameters
    ----------
    model : the regressions
    """

    def __init__(self, model: LmList) -> None:
        self._model = model

    def intervals(self, level: float = 0.95) -> Axes:
        """Draw each subject's coefficients with their limits, as nlme's intervals.

        The subjects have one order in all panels, that of the table; the line is at the
        mean.
        """
        limits = self._model.conf_int(level)
        group = str(limits.index.names[0])
        table = limits.rename_axis(["level", "term"]).reset_index()
        rank = table.groupby("term", sort=False).cumcount() + 1
        return plots.draw_caterpillar(table.assign(grp=group, rank=rank), middle="mean")

    def residuals(self, ax: Axes = None) -> Axes:
        """Draw residuals against the fitted values of the subjects' regressions."""
        return plots.draw_residuals(self._model.fittedvalues, self._model.resid, ax)

    def qq(self, ax: Axes = None) -> Axes:
        """Draw residuals against normal quantiles."""
        return plots.draw_qq(self._model.resid, ax)
