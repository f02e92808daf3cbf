"""The loops of `mixform.relationship.sweeps`, compiled, for large pedigrees."""

from __future__ import annotations

from mixform._jit import kernel
from mixform.relationship import sweeps

relate = kernel(sweeps.relate)
up = kernel(sweeps.up)
down = kernel(sweeps.down)
