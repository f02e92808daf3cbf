"""theta -> T and dT: one structure per file, one line each in `STRUCTURES`."""

from mixform.covariance.diagonal import Diagonal
from mixform.covariance.structure import Structure as Structure
from mixform.covariance.structure import semidefinite_cholesky as semidefinite_cholesky
from mixform.covariance.unstructured import Unstructured

STRUCTURES: dict[str, Structure] = {
    "us": Unstructured(),
    "diag": Diagonal(),
    "iid": Unstructured("iid"),  # levels independent, whatever their relationship
}
