"""TERMS + DATA -> y, X, the blocks of Z, weights and offset.

Rows are counted by n, fixed-effect columns by p. Row order is the data's; the rows a
model does not use (missing values, ``subset=``) are dropped once, here, and counted.
"""

from mixform.design.build import build_design as build_design
from mixform.design.column_space import ColumnSpace as ColumnSpace
from mixform.design.contrasts import CONTRASTS as CONTRASTS
from mixform.design.fixed import FixedPart as FixedPart
from mixform.design.fixed import matrix_part as matrix_part
from mixform.design.random import RandomBlock as RandomBlock
from mixform.design.random import Relation as Relation
from mixform.design.record import Design as Design
from mixform.design.residual import ResidualFormula as ResidualFormula
from mixform.design.residual import ResidualPart as ResidualPart
from mixform.design.residual import residual_of_rows as residual_of_rows
from mixform.design.residual import same_residuals as same_residuals
