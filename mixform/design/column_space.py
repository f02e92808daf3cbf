"""Which functions of the coefficients the columns of X determine.

The solutions of least squares are beta + N z, N the null space of X: a function
ell'beta is estimable, the same for all of them, if and only if ell'N = 0 (Searle 1971,
Linear Models). N has one direction for each column that is a combination of others: 1
for that column, minus the combination for those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixform._typing import Mask, Matrix, Vector
from mixform.errors import InferenceError

#: Change along a direction of the null space, relative to the size of its parts, from
#: which a function is not estimable.
TOLERANCE = 1e-6

#: Names that are listed in full.
LISTED = 12

HINT = (
    "Ask for differences, or means over what the data determine; estimable(model, K) "
    "says which rows are estimable and why."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnSpace:
    """The columns of X as combinations of those that are independent.

    Attributes
    ----------
    names : of all c columns
    kept : positions of the p independent columns
    aliased : positions of the a = c - p columns that are combinations of those
    alias_of_kept : (p, a) coefficients of the combinations
    """

    names: tuple[str, ...]
    kept: tuple[int, ...]
    aliased: tuple[int, ...]
    alias_of_kept: Matrix

    @property
    def null_space(self) -> Matrix:
        """Directions (c, a) along which X beta does not change."""
        N = np.zeros((len(self.names), len(self.aliased)))
        N[list(self.kept)] = -self.alias_of_kept
        N[list(self.aliased), np.arange(len(self.aliased))] = 1.0
        return N

    @property
    def not_unique(self) -> tuple[str, ...]:
        """Names of the kept columns whose coefficient is not estimable by itself."""
        moved = np.any(self.alias_of_kept != 0.0, axis=1)
        return tuple(self.names[j] for j, m in zip(self.kept, moved, strict=True) if m)

    def changes(self, L: Matrix) -> Matrix:
        """Return how much each direction of the null space changes L beta, (r, a)."""
        return L[:, self.aliased] - L[:, self.kept] @ self.alias_of_kept

    def undetermined(self, L: Matrix) -> Mask:
        """Return which directions of the null space change L (r, c), (r, a)."""
        size = np.abs(L[:, self.kept]) @ np.abs(self.alias_of_kept)
        size += np.abs(L[:, self.aliased])
        return np.abs(self.changes(L)) > TOLERANCE * np.maximum(size, 1e-300)

    def estimable(self, L: Matrix) -> Mask:
        """Return which rows of L (r, c) are estimable, (r,)."""
        return np.asarray(~np.any(self.undetermined(L), axis=1))

    def require_estimable(
        self, L: Matrix, labels: Sequence[str] | None = None
    ) -> Matrix:
        """Return the kept columns of L (r, c), (r, p), once its rows are estimable.

        Raises
        ------
        InferenceError : a row is not estimable; says what changes it
        """
        bad = np.flatnonzero(~self.estimable(L))
        if len(bad):
            i = int(bad[0])
            what = f"Row {i + 1} of the contrast"
            if labels is not None and not labels[i].startswith("row "):
                what += f" ({labels[i]})"
            raise InferenceError(
                f"{what} is not estimable: {self.reason(L[i])}.", hint=HINT
            )
        return L[:, self.kept]

    def reason(self, ell: Vector) -> str:
        """Return which direction of the null space changes ell'beta, in words."""
        changes = self.changes(ell[None, :])[0]
        touched = np.flatnonzero(self.undetermined(ell[None, :])[0])
        N = self.null_space
        a = min(touched, key=lambda j: np.count_nonzero(N[:, j]))
        change, direction = float(changes[a]), N[:, a]
        if change < 0.0:
            change, direction = -change, -direction
        return (
            f"adding {self._steps(direction)} leaves all fitted values as they are, "
            f"but changes this function by {change:.6g}"
        )

    def _steps(self, direction: Vector) -> str:
        """Return a direction as "1 to a and -1 to b", equal steps together."""
        steps: dict[str, list[str]] = {}
        for j in np.flatnonzero(direction):
            steps.setdefault(f"{direction[j]:.6g}", []).append(self.names[j])
        everything = _families(self.names)
        parts: list[str] = []
        for step, names in steps.items():
            for family, members in everything.items():
                if len(members) > 1 and set(members) <= set(names):
                    first = names.index(members[0])
                    names = [n for n in names if n not in members]
                    names.insert(first, f"every {family}[...]")
            parts.append(f"{step} to {listed(names)}")
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)


def listed(names: Sequence[str]) -> str:
    """Return names joined by commas, no more than a reader takes in."""
    rest = len(names) - LISTED
    more = [f"... ({rest} more)"] if rest > 1 else names[LISTED:]
    return ", ".join([*names[:LISTED], *more])


def _families(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the columns of each plain factor, g[a], g[b]."""
    out: dict[str, list[str]] = {}
    for name in names:
        if name.endswith("]") and name.count("[") == 1:
            out.setdefault(name.split("[")[0], []).append(name)
    return out
