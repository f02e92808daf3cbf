# Tables of lme4's anova(m1, m2), lmerTest's ranova, drop1 and step for the tests of
# tests/inference. Run from tests/references: Rscript comparison.R > comparison.txt
suppressPackageStartupMessages({library(lmerTest); library(jsonlite)})
options(digits = 12, width = 140)
read <- function(name, factors) {
  data <- read.csv(file.path("data", paste0(name, ".csv")))
  for (f in factors) data[[f]] <- factor(data[[f]])
  data
}
ham <- read("ham", c("Consumer", "Product", "Information", "Gender"))
# Rows with a missing Income go, so that all models are of the same rows.
carrots <- read("carrots", c("Consumer", "Frequency", "Homesize", "Income", "Product"))
carrots <- carrots[!is.na(carrots$Income) & !is.na(carrots$Homesize), ]
tv <- read("TVbo", c("Assessor", "TVset", "Picture", "Repeat"))
oats <- nlme::Oats; oats$Block <- factor(as.character(oats$Block)); oats$Variety <- factor(as.character(oats$Variety))
machines <- as.data.frame(nlme::Machines); machines$Worker <- factor(as.character(machines$Worker))
sleepstudy <- lme4::sleepstudy; Pastes <- lme4::Pastes
# The optimizer of lme4_models.R, for the refits too: lme4's own stop short of some optima.
borrowed <- c("optimize_tightly", "newton", "newton_gradient")
for (expression in parse("lme4_models.R"))
  if (as.character(expression[[1]])[1] == "<-" && as.character(expression[[2]])[1] %in% borrowed)
    eval(expression, globalenv())
tightly <- function(fn, par, lower, upper, control) {
  devfun <- function(theta) fn(theta)
  environment(devfun) <- list2env(list(fn = fn, lower = lower, pp = list(theta = par)),
                                  parent = environment())
  optimum <- optimize_tightly(devfun)
  list(par = optimum$theta, fval = optimum$criterion, conv = 0, feval = 1, message = "")
}
tight <- lmerControl(optimizer = "tightly", restart_edge = FALSE, boundary.tol = 0,
                     calc.derivs = FALSE, check.conv.singular = "ignore")
fit <- function(formula, data, REML = TRUE) {
  # The call keeps the data's name, which update() needs.
  eval(substitute(lmer(F, data = D, REML = R, control = tight),
                  list(F = formula, D = substitute(data), R = REML)), globalenv())
}
out <- list()
keep <- function(kind, id, formulas, data, method, table) {
  cat("\n#", kind, id, "\n"); print(table)
  out[[length(out) + 1]] <<- list(kind = kind, id = id, formulas = I(formulas), dataset = data,
    method = method, rows = I(rownames(table)),
    columns = lapply(as.list(as.data.frame(table)), function(x) I(sapply(x, function(v) if (is.na(v)) NA else format(v, digits = 12)))))
}
text <- function(m) paste(deparse(formula(m), width.cutoff = 500), collapse = "")

models <- list(
  sleepstudy = list("sleepstudy", fit(Reaction ~ Days + (Days | Subject), sleepstudy)),
  sleepstudy_bars = list("sleepstudy", fit(Reaction ~ Days + (Days || Subject), sleepstudy)),
  ham = list("ham", fit(Informed.liking ~ Product * Information * Gender + (1 | Product:Consumer) + (1 | Consumer), ham)),
  carrots = list("carrots", fit(Preference ~ sens2 + Homesize + (1 + sens2 | Consumer), carrots)),
  carrots_big = list("carrots", fit(Preference ~ (sens1 + sens2) * Homesize + Income + (1 + sens1 + sens2 | Consumer), carrots)),
  tv = list("TVbo", fit(Sharpness ~ TVset * Picture + (1 | Assessor) + (1 | Assessor:TVset) + (1 | Assessor:Picture), tv)),
  oats = list("Oats", fit(yield ~ nitro * Variety + (1 | Block/Variety), oats)),
  machines = list("Machines", fit(score ~ Machine + (0 + Machine | Worker), machines)),
  pastes = list("Pastes", fit(strength ~ 1 + (1 | batch/cask), Pastes)),
  carrots_ml = list("carrots", fit(Preference ~ sens2 * Homesize + (1 + sens2 | Consumer), carrots, FALSE))
)
for (id in names(models)) {
  data <- models[[id]][[1]]; m <- models[[id]][[2]]
  method <- if (isREML(m)) "REML" else "ML"
  if (id != "sleepstudy_bars") keep("ranova", id, text(m), data, method, ranova(m))
  keep("ranova_whole", id, text(m), data, method, ranova(m, reduce.terms = FALSE))
  if (id == "pastes") next
  keep("drop1", id, text(m), data, method, drop1(m))
  keep("drop1_lrt", id, text(m), data, method, drop1(m, test = "Chisq", ddf = "lme4"))
  if (id %in% c("machines", "sleepstudy_bars")) next
  s <- step(m)
  keep("step_random", id, text(m), data, method, s$random)
  keep("step_fixed", id, text(m), data, method, s$fixed)
  out[[length(out)]]$final <- text(attr(s, "model"))
  cat("Model found:", text(attr(s, "model")), "\n")
}
pairs <- list(
  sleepstudy = list("sleepstudy", fit(Reaction ~ Days + (1 | Subject), sleepstudy), fit(Reaction ~ Days + (Days || Subject), sleepstudy), fit(Reaction ~ Days + (Days | Subject), sleepstudy)),
  pastes = list("Pastes", fit(strength ~ 1 + (1 | batch:cask), Pastes), fit(strength ~ 1 + (1 | batch/cask), Pastes)),
  ham = list("ham", fit(Informed.liking ~ Product + (1 | Consumer), ham), fit(Informed.liking ~ Product * Information + (1 | Consumer), ham)),
  carrots = list("carrots", fit(Preference ~ sens2 + (1 | Consumer), carrots), fit(Preference ~ sens2 * Homesize + (1 + sens2 | Consumer), carrots))
)
for (id in names(pairs)) for (refit in c(TRUE, FALSE)) {
  ms <- pairs[[id]][-1]; names(ms) <- NULL
  if (!refit && id %in% c("ham", "carrots")) next
  table <- do.call(anova, c(ms, list(refit = refit, model.names = paste0("m", seq_along(ms)))))
  keep("compare", paste0(id, if (refit) "" else "_reml"), sapply(ms, text), pairs[[id]][[1]], if (refit) "ML" else "REML", table)
}
session <- list(R = R.version.string, lme4 = as.character(packageVersion("lme4")), lmerTest = as.character(packageVersion("lmerTest")))
write(toJSON(list(provenance = session, tables = out), auto_unbox = TRUE, na = "null", pretty = TRUE), "comparison.json")
