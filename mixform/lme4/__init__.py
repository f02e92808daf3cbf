"""The same model in R: a program for lme4 and lmerTest, and what it found, beside ours.

FIT -> R PROGRAM + CSV -> TEXT -> TABLES. R is asked once, in a process of its own;
nothing in mixform depends on it.
"""

from mixform.lme4.compare import SideBySide as SideBySide
from mixform.lme4.compare import compare_lme4 as compare_lme4
from mixform.lme4.program import RProgram as RProgram
from mixform.lme4.program import r_program as r_program
