# emmeans on reference grids out of the ordinary: nested factors, cells without data, all
# weights, covariates with two values, offsets, transformed responses. Linear models, so
# that nothing depends on an optimizer.
#
#   Rscript means.R        writes means.json (numbers as printed strings) and means.txt

suppressPackageStartupMessages(library(emmeans))
options(width = 100, emmeans = list(msg.interaction = FALSE, msg.nesting = FALSE))
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
all <- read.csv(file.path(here, "data", "sim_factorial.csv"), stringsAsFactors = TRUE)
# Columns and rows that tests/inference/test_means.py makes in the same way.
all$two <- as.integer(all$c == "c2")        # a covariate with two values
all$site <- factor(paste0(all$a, all$b))    # nested in a by its labels
all$x <- (7 * (seq_len(nrow(all)) - 1)) %% 11 / 2
all$known <- (seq_len(nrow(all)) - 1) %% 5
data_sets <- list(
  unbalanced = all[-(1:7), ],
  no_cell = subset(all, !(a == "a1" & b == "b2")),
  no_site = subset(all, site != "a3b1")
)

text <- function(x) {
  out <- if (is.numeric(x)) sprintf("%.12g", x) else as.character(x)
  out[is.na(x)] <- NA
  out
}
made <- list()
raw <- file(file.path(here, "means.txt"), "wb")
record <- function(id, formula, data, specs, by = NULL, at = NULL, weights = "equal",
                   type = "link", method = NULL, var = NULL) {
  m <- eval(bquote(lm(.(as.formula(formula)), data = data_sets[[.(data)]])))
  args <- list(m, specs, by = by, at = at, weights = weights)
  if (!is.null(var)) args <- c(args, var = var, delta.var = 1e-5)
  means <- suppressMessages(do.call(if (is.null(var)) emmeans else emtrends, args))
  if (!is.null(method)) means <- contrast(means, method, type = type)
  table <- summary(means, infer = c(TRUE, TRUE), type = type)
  # A group of one mean has no contrast; emmeans prints a row for it all the same.
  if (!is.null(method)) table <- table[table$contrast != "(nothing)", ]
  writeLines(c(sprintf("[%s]  %s  data %s", id, formula, data),
               capture.output(print(table)), ""), raw)
  columns <- lapply(as.list(as.data.frame(table)), text)
  made[[id]] <<- list(
    id = id, formula = formula, data = data, specs = as.list(specs), by = as.list(by),
    at = if (!is.null(at)) lapply(at, as.list), weights = weights, type = type,
    method = method, var = var,
    rows = lapply(seq_along(columns[[1]]), function(i) lapply(columns, `[[`, i)))
}

for (weights in c("equal", "proportional", "outer", "cells", "flat")) {
  record(paste0("three_", weights), "y ~ a * b + c + x", "unbalanced", "a",
         weights = weights)
  record(paste0("two_", weights), "y ~ a * two + b + x", "unbalanced", c("b", "two"),
         weights = weights)
  record(paste0("no_cell_", weights), "y ~ a * b + c", "no_cell", "b", weights = weights)
  record(paste0("nested_", weights), "y ~ a / site + c", "no_site", "a", weights = weights)
  record(paste0("reused_", weights), "y ~ a / b + c", "unbalanced", "a", weights = weights)
  record(paste0("overall_", weights), "y ~ a + b * c", "unbalanced", "1",
         weights = weights)
}
record("two_averaged", "y ~ a * two + x", "unbalanced", "a")
record("two_at", "y ~ a * two + x", "unbalanced", "a", at = list(two = 0.5))
record("two_at_one", "y ~ a * two + x", "unbalanced", "a", at = list(two = 1))
record("at_averaged", "y ~ a * x", "unbalanced", "a", at = list(x = c(1, 4)))
record("levels", "y ~ a * b + c", "unbalanced", "b", at = list(a = c("a1", "a3")))
record("no_cell_both", "y ~ a * b + c", "no_cell", c("a", "b"))
record("no_cell_pairs", "y ~ a * b + c", "no_cell", "b", by = "a", method = "pairwise")
record("nested_sites", "y ~ a / site + c", "no_site", c("site", "a"))
record("nested_pairs", "y ~ a / site + c", "no_site", "site", by = "a",
       method = "pairwise")
record("nested_a_pairs", "y ~ a / site + c", "no_site", "a", method = "pairwise")
record("nested_additive", "y ~ a + site + c", "no_site", "a")
record("nested_overall", "y ~ a / site + c", "no_site", "1")
record("reused_sites", "y ~ a / b + c", "unbalanced", c("b", "a"))
record("offset", "y ~ a + x + offset(log(known + 1))", "unbalanced", "a")
record("factor_call", "y ~ factor(two) * a", "unbalanced", "two")
record("log_covariate", "y ~ a * log(x + 1)", "unbalanced", "a")
record("log_slopes", "y ~ a * log(x + 1)", "unbalanced", "a", var = "x")
for (response in c("log(y)", "log2(y)", "log10(y)", "log1p(y)", "sqrt(y)", "exp(y / 10)",
                   "log(y + 3)")) {
  id <- gsub("[^a-z0-9]+", "_", response)
  formula <- paste(response, "~ a * b + x")
  record(paste0(id, "means"), formula, "unbalanced", "a", type = "response")
  record(paste0(id, "pairs"), formula, "unbalanced", "a", type = "response",
         method = "pairwise")
}
for (method in c("poly", "eff", "del.eff", "consec", "mean_chg", "revpairwise"))
  record(paste0("method_", method), "y ~ site + x", "unbalanced", "site",
         method = method)
close(raw)

session <- list(R = R.version.string, emmeans = as.character(packageVersion("emmeans")))
json <- function(x) jsonlite::toJSON(x, auto_unbox = TRUE, null = "null", na = "null",
                                     digits = NA)
cat("{\"session\":", json(session), ",\n\"tables\":[\n",
    paste(vapply(made, json, ""), collapse = ",\n"), "\n]}\n", sep = "",
    file = file.path(here, "means.json"))
