# Tables of what lmerTest, pbkrtest, emmeans, multcomp and lme4 do after the fit:
# after_fit.json (numbers as printed strings) and after_fit.txt (R's own output).
#
#   Rscript after_fit.R <package data folder> [<output folder> [<part> ...]]
#
# The package data folder is mixform/datasets. Parts are the names of after_fit_<part>.R;
# all of them by default. README.md describes the output.

arguments <- commandArgs(TRUE)
if (!length(arguments)) stop("usage: Rscript after_fit.R <folder of package CSVs>")
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
folders <- c(arguments[1], file.path(here, "data"))
folder <- if (length(arguments) > 1) arguments[2] else here
parts <- if (length(arguments) > 2) arguments[-(1:2)] else
  c("kenward_roger", "tests", "means", "contrasts", "likelihood", "diagnostics", "other")
raw_output <- file.path(folder, "after_fit.txt")

source(file.path(here, "after_fit_common.R"))
for (part in parts) {
  set.seed(1)
  writeLines(c(strrep("#", 88), paste0("# after_fit_", part, ".R"), ""), raw)
  source(file.path(here, paste0("after_fit_", part, ".R")))
}
used <- unique(unlist(lapply(tables_made, function(table)
  c(table$model, table$args$models))))
writeLines(c(strrep("#", 88), "# models", "", list_models(used), strrep("#", 88),
             capture.output(print(sessionInfo()))), raw)
close(raw)

packages <- c("lme4", "lmerTest", "pbkrtest", "emmeans", "multcomp", "mvtnorm",
              "numDeriv", "minqa", "nloptr", "jsonlite", "multcompView", "performance",
              "insight", "clubSandwich", "broom.mixed", "glmmTMB")
packages <- Filter(function(p) requireNamespace(p, quietly = TRUE), packages)
session <- list(R = R.version.string, number_format = "%.10g",
                packages = sapply(packages, function(p) as.character(packageVersion(p)),
                                  simplify = FALSE))
output <- file(file.path(folder, "after_fit.json"), "wb")
cat("{\"session\":", to_json(session), ",\n\"models\":[\n",
    paste(vapply(models[used], function(x) to_json(describe(x)), ""),
          collapse = ",\n"), "\n],\n\"tables\":[\n",
    paste(vapply(tables_made, to_json, ""), collapse = ",\n"), "\n]}\n", sep = "",
    file = output)
close(output)
