"""TESTS -> TABLES and TEXT; computes no statistic."""

from mixform.report.layout import Summary as Summary
from mixform.report.summary import fit_notes as fit_notes
from mixform.report.summary import summarize as summarize
from mixform.report.tables import AnovaTable as AnovaTable
from mixform.report.tables import anova_table as anova_table
from mixform.report.tables import ranef_summary as ranef_summary
