"""STRING -> TERMS: read the formula; this layer never sees data."""

from mixform.formula.names import FUNCTIONS as FUNCTIONS
from mixform.formula.names import alias as alias
from mixform.formula.names import readable as readable
from mixform.formula.parse import formulaic_formula as formulaic_formula
from mixform.formula.parse import parse_formula as parse_formula
from mixform.formula.residual import ResidualTerm as ResidualTerm
from mixform.formula.residual import parse_dispersion as parse_dispersion
from mixform.formula.residual import parse_residual as parse_residual
from mixform.formula.subjects import parse_between as parse_between
from mixform.formula.subjects import parse_subjects as parse_subjects
from mixform.formula.subjects import single_stage as single_stage
from mixform.formula.terms import ModelFormula as ModelFormula
from mixform.formula.terms import Part as Part
from mixform.formula.terms import RandomTerm as RandomTerm
