"""ARRAYS -> LINEAR SYSTEM: cross-products of the design and the matrix M."""

from mixform.mme.backends import BACKENDS as BACKENDS
from mixform.mme.backends import build_equations as build_equations
from mixform.mme.backends import few_threads as few_threads
from mixform.mme.dense import DenseEquations as DenseEquations
from mixform.mme.equations import Equations as Equations
from mixform.mme.equations import Factor as Factor
from mixform.mme.equations import ZBlock as ZBlock
