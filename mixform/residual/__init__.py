"""rho -> R: one family of correlations per file, one line per structure in `RESIDUALS`.

A line makes a structure of the options that were written with it.
"""

from collections.abc import Callable, Mapping

from mixform.residual.antedependence import Antedependence
from mixform.residual.autoregressive import Autoregressive, ContinuousAutoregressive
from mixform.residual.compound_symmetry import CompoundSymmetry
from mixform.residual.independent import Independent
from mixform.residual.spatial import Matern, PowerExponential, Spatial
from mixform.residual.structure import Correlation as Correlation
from mixform.residual.structure import Structure as Structure
from mixform.residual.toeplitz import Toeplitz
from mixform.residual.unstructured import AnyCorrelation

#: What makes the family, whether variances differ, and the options there are.
RESIDUALS: Mapping[str, tuple[Callable[..., Correlation], bool, tuple[str, ...]]] = {
    "us": (AnyCorrelation, True, ()),
    "diag": (Independent, True, ()),
    "cs": (lambda: CompoundSymmetry(linear=True), False, ()),
    "csh": (lambda: CompoundSymmetry(linear=False), True, ()),
    "ar1": (Autoregressive, False, ()),
    "arh1": (Autoregressive, True, ()),
    "car1": (ContinuousAutoregressive, False, ()),
    "toep": (lambda: Toeplitz(linear=True), False, ()),
    "toeph": (lambda: Toeplitz(linear=False), True, ()),
    "ante1": (Antedependence, True, ()),
    "exp": (
        lambda nugget=False: Spatial(PowerExponential(1), nugget=nugget),
        False,
        ("nugget",),
    ),
    "gau": (
        lambda nugget=False: Spatial(PowerExponential(2), nugget=nugget),
        False,
        ("nugget",),
    ),
    "mat": (
        lambda nu=None, nugget=False: Spatial(Matern(nu), nugget=nugget),
        False,
        ("nu", "nugget"),
    ),
}


def make_structure(name: str, options: Mapping[str, object]) -> Structure:
    """Return the structure of a name of `RESIDUALS`; options were checked before."""
    make, heterogeneous, _ = RESIDUALS[name]
    return Structure(name=name, family=make(**options), heterogeneous=heterogeneous)
