"""ARRAYS -> LINEAR SYSTEM: cross-products of the design and the matrix M."""

from mixform.mme.dense import DenseEquations as DenseEquations
from mixform.mme.equations import Equations as Equations
from mixform.mme.equations import Factor as Factor
from mixform.mme.equations import Z_dot as Z_dot
from mixform.mme.equations import ZBlock as ZBlock
from mixform.mme.equations import Zt_dot as Zt_dot
from mixform.mme.equations import apply_blocks as apply_blocks
