"""Known relationships between the levels of a random term."""

from mixform.relationship.genomic import Genomic as Genomic
from mixform.relationship.genomic import genomic as genomic
from mixform.relationship.pedigree import Pedigree as Pedigree
