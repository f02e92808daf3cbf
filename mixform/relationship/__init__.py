"""Known relationships between the levels of a random term."""

from mixform.relationship.covariance import Covariance as Covariance
from mixform.relationship.covariance import loading as loading
from mixform.relationship.genomic import Genomic as Genomic
from mixform.relationship.genomic import genomic as genomic
from mixform.relationship.pedigree import Pedigree as Pedigree
from mixform.relationship.relation import Precision as Precision
from mixform.relationship.relation import precision as precision
from mixform.relationship.relation import resolve_relationship as resolve_relationship
from mixform.relationship.single_step import SingleStep as SingleStep
from mixform.relationship.single_step import single_step as single_step
