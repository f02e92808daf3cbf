"""theta -> T and dT: one structure per file, one line each in `STRUCTURES`."""

from mixform.covariance.compound_symmetry import CompoundSymmetry
from mixform.covariance.diagonal import Diagonal
from mixform.covariance.factor_analytic import FactorAnalytic
from mixform.covariance.markov import Markov
from mixform.covariance.patterned import Patterned as Patterned
from mixform.covariance.placing import placed
from mixform.covariance.reduced_rank import ReducedRank
from mixform.covariance.structure import Curved as Curved
from mixform.covariance.structure import Natural as Natural
from mixform.covariance.structure import Structure as Structure
from mixform.covariance.structure import is_curved as is_curved
from mixform.covariance.structure import semidefinite_cholesky as semidefinite_cholesky
from mixform.covariance.toeplitz import Toeplitz
from mixform.covariance.unstructured import Unstructured
from mixform.design import RandomBlock

STRUCTURES: dict[str, Structure] = {
    "us": Unstructured(),
    "diag": Diagonal(),
    "iid": Unstructured("iid"),  # levels independent, whatever their relationship
    "cs": Patterned("cs", CompoundSymmetry(), heterogeneous=False),
    "csh": Patterned("csh", CompoundSymmetry(), heterogeneous=True),
    "ar1": Patterned("ar1", Markov(), heterogeneous=False),
    "arh1": Patterned("arh1", Markov(), heterogeneous=True),
    "toep": Patterned("toep", Toeplitz(), heterogeneous=False),
    "toeph": Patterned("toeph", Toeplitz(), heterogeneous=True),
    "exp": Patterned("exp", Markov(decay=True), heterogeneous=False),
    "fa1": FactorAnalytic(),
    "rr": ReducedRank(),
}


def structure_of(block: RandomBlock, source: str) -> Structure:
    """Return the structure of a random term, at the positions of its coefficients.

    Parameters
    ----------
    source : the formula, for messages

    Raises
    ------
    DesignError : the coefficients are too few, no levels of one factor, or have no
        positions of the kind that the structure needs
    """
    return placed(STRUCTURES[block.term.structure], block, source)
