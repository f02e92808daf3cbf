# Time lme4 and lmerTest on the sleep study, warm, in this process.
#
#   Rscript timing_lme4.R <package data folder> [<runs, at least 50>]
#
# Prints one line per measurement: its name and the median of the runs in milliseconds.
# lmer: the fit alone. lmertest_summary: fit, Satterthwaite summary and its printing.
# lmertest_summary_only: summary and printing of a model already fitted.
# Set OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1 for a fair comparison.

suppressPackageStartupMessages(library(lmerTest))

arguments <- commandArgs(TRUE)
if (!length(arguments)) stop("usage: Rscript timing_lme4.R <folder of package CSVs>")
runs <- if (length(arguments) > 1) max(50, as.integer(arguments[2])) else 60
sleepstudy <- read.csv(file.path(arguments[1], "sleepstudy.csv"))
sleepstudy$Subject <- factor(sleepstudy$Subject)

median_ms <- function(expr) {
  code <- substitute(expr)
  here <- parent.frame()
  once <- function() {
    began <- Sys.time()
    eval(code, here)
    as.numeric(Sys.time() - began, units = "secs") * 1e3
  }
  for (i in 1:10) once()
  median(vapply(seq_len(runs), function(i) once(), 0))
}
report <- function(name, ms) cat(sprintf("%s %.3f\n", name, ms))

formula <- Reaction ~ Days + (Days | Subject)
fitted_once <- lmerTest::lmer(formula, sleepstudy)
report("lmer", median_ms(lme4::lmer(formula, sleepstudy)))
report("lmertest_summary", median_ms(
  capture.output(print(summary(lmerTest::lmer(formula, sleepstudy))))
))
report("lmertest_summary_only", median_ms(capture.output(print(summary(fitted_once)))))
