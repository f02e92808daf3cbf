# Fit the reference models with lme4 and lmerTest and write lme4_models.json.
#
#   Rscript lme4_models.R <package data folder> [<test data folder>] [<output file>]
#
# The package data folder is mixform/datasets; the other two default to data/ and
# lme4_models.json beside this file. README.md describes the output.

suppressPackageStartupMessages(library(lme4))
options(contrasts = c("contr.treatment", "contr.poly"))
set.seed(1)

arguments <- commandArgs(TRUE)
if (!length(arguments)) stop("usage: Rscript lme4_models.R <folder of package CSVs>")
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
argument <- function(i, default) if (length(arguments) < i) default else arguments[i]
folders <- c(arguments[1], argument(2, file.path(here, "data")))
output <- argument(3, file.path(here, "lme4_models.json"))

# ---- data ----------------------------------------------------------------------------

# Columns that become factors. Levels in numeric or alphabetical order unless listed.
factor_columns <- list(
  pigs = "group", sleepstudy = "Subject", Dyestuff = "Batch", Dyestuff2 = "Batch",
  Penicillin = c("plate", "sample"), Pastes = c("batch", "cask", "sample"),
  cake = c("replicate", "recipe", "temperature"), Rail = "Rail",
  ergoStool = c("Type", "Subject"), Machines = c("Worker", "Machine"),
  Oats = c("Block", "Variety"), Orthodont = c("Subject", "Sex"),
  stroup = c("Block", "A", "B"),
  carrots = c("Consumer", "Frequency", "Homesize", "Income", "Product"),
  ham = c("Consumer", "Product", "Information", "Gender"),
  TVbo = c("Assessor", "TVset", "Repeat", "Picture"),
  Assay = c("Block", "sample", "dilut"), BodyWeight = c("Rat", "Diet"),
  Pixel = c("Dog", "Side"), RatPupWeight = c("sex", "Litter", "Treatment"),
  nlschools = c("class", "COMB"), petrol = "No",
  sim_crossed = c("item", "subj", "cond"), sim_nested = c("school", "class", "treat"),
  sim_weights = "g", sim_singular = c("g", "h"),
  sim_factorial = c("block", "a", "b", "c")
)
level_orders <- list(
  Orthodont = list(Sex = c("Male", "Female")),
  RatPupWeight = list(sex = c("Male", "Female"),
                      Treatment = c("Control", "Low", "High")),
  sim_nested = list(treat = c("none", "low", "high"))
)

natural_order <- function(labels) {
  labels <- unique(as.character(labels))
  if (all(grepl("^[0-9]+$", labels))) labels[order(as.integer(labels))]
  else sort(labels, method = "radix")
}

read_data <- function(name) {
  paths <- file.path(folders, paste0(name, ".csv"))
  data <- read.csv(paths[file.exists(paths)][1], stringsAsFactors = FALSE)
  for (column in factor_columns[[name]]) {
    levels <- level_orders[[name]][[column]]
    if (is.null(levels)) levels <- natural_order(data[[column]])
    data[[column]] <- factor(as.character(data[[column]]), levels = levels)
  }
  data
}
tables <- sapply(names(factor_columns), read_data, simplify = FALSE)

# ---- models --------------------------------------------------------------------------

models <- list()
add <- function(id, dataset, formula, method = "REML", weights = NULL, contrasts = NULL,
                kr = FALSE) {
  stopifnot(!id %in% names(models))
  models[[id]] <<- list(id = id, dataset = dataset, formula = formula, method = method,
                        weights = weights, contrasts = contrasts, kr = kr)
}

add("pigs_ols", "pigs", "gain ~ group")
add("pigs_ols_sum", "pigs", "gain ~ group", contrasts = list(group = "sum"))
add("sleepstudy_ols", "sleepstudy", "Reaction ~ Days")
add("sleepstudy_intercept", "sleepstudy", "Reaction ~ Days + (1|Subject)", kr = TRUE)
add("sleepstudy_intercept_ml", "sleepstudy", "Reaction ~ Days + (1|Subject)", "ML")
add("sleepstudy_slopes", "sleepstudy", "Reaction ~ Days + (Days|Subject)", kr = TRUE)
add("sleepstudy_slopes_ml", "sleepstudy", "Reaction ~ Days + (Days|Subject)", "ML")
add("sleepstudy_uncorrelated", "sleepstudy", "Reaction ~ Days + (Days||Subject)",
    kr = TRUE)
add("sleepstudy_uncorrelated_ml", "sleepstudy", "Reaction ~ Days + (Days||Subject)",
    "ML")
add("sleepstudy_two_terms", "sleepstudy",
    "Reaction ~ Days + (1|Subject) + (0 + Days|Subject)")
add("sleepstudy_slope_only_ml", "sleepstudy", "Reaction ~ Days + (0 + Days|Subject)",
    "ML")
add("sleepstudy_log", "sleepstudy", "log(Reaction) ~ Days + (Days|Subject)")
add("sleepstudy_square", "sleepstudy", "Reaction ~ Days + I(Days^2) + (Days|Subject)")
add("sleepstudy_factor_days", "sleepstudy", "Reaction ~ factor(Days) + (1|Subject)")
add("sleepstudy_no_fixed_slope", "sleepstudy", "Reaction ~ 1 + (Days|Subject)")
add("sleepstudy_poly", "sleepstudy", "Reaction ~ poly(Days, 2) + (1|Subject)")

add("dyestuff", "Dyestuff", "Yield ~ 1 + (1|Batch)", kr = TRUE)
add("dyestuff_ml", "Dyestuff", "Yield ~ 1 + (1|Batch)", "ML")
add("dyestuff2", "Dyestuff2", "Yield ~ 1 + (1|Batch)")
add("dyestuff2_ml", "Dyestuff2", "Yield ~ 1 + (1|Batch)", "ML")

add("penicillin", "Penicillin", "diameter ~ 1 + (1|plate) + (1|sample)", kr = TRUE)
add("penicillin_ml", "Penicillin", "diameter ~ 1 + (1|plate) + (1|sample)", "ML")

add("pastes_nested", "Pastes", "strength ~ 1 + (1|batch/cask)")
add("pastes_nested_ml", "Pastes", "strength ~ 1 + (1|batch/cask)", "ML")
add("pastes_sample", "Pastes", "strength ~ 1 + (1|batch) + (1|sample)")
add("pastes_interaction_ml", "Pastes", "strength ~ 1 + (1|batch:cask)", "ML")
add("pastes_cask", "Pastes", "strength ~ cask + (1|batch)")

add("cake_factorial", "cake", "angle ~ recipe*temperature + (1|recipe:replicate)",
    kr = TRUE)
add("cake_factorial_sum", "cake", "angle ~ recipe*temperature + (1|recipe:replicate)",
    contrasts = list(recipe = "sum", temperature = "sum"))
add("cake_factorial_helmert", "cake",
    "angle ~ recipe*temperature + (1|recipe:replicate)",
    contrasts = list(recipe = "helmert", temperature = "helmert"))
add("cake_additive_ml", "cake", "angle ~ recipe + temperature + (1|recipe:replicate)",
    "ML")
add("cake_covariate", "cake", "angle ~ recipe*temp + (1|recipe:replicate)")
add("cake_crossed", "cake",
    "angle ~ temp + (1|replicate) + (1|recipe:replicate) + (1|recipe)")

add("rail", "Rail", "travel ~ 1 + (1|Rail)")
add("rail_ml", "Rail", "travel ~ 1 + (1|Rail)", "ML")

add("ergostool", "ergoStool", "effort ~ Type + (1|Subject)", kr = TRUE)
add("ergostool_ml", "ergoStool", "effort ~ Type + (1|Subject)", "ML")
add("ergostool_sum", "ergoStool", "effort ~ Type + (1|Subject)",
    contrasts = list(Type = "sum"))
add("ergostool_helmert", "ergoStool", "effort ~ Type + (1|Subject)",
    contrasts = list(Type = "helmert"))
add("ergostool_cell_means", "ergoStool", "effort ~ 0 + Type + (1|Subject)")

add("machines_nested", "Machines", "score ~ Machine + (1|Worker/Machine)", kr = TRUE)
add("machines_intercept", "Machines", "score ~ Machine + (1|Worker)")
add("machines_vector", "Machines", "score ~ Machine + (0 + Machine|Worker)")
add("machines_vector_ml", "Machines", "score ~ Machine + (0 + Machine|Worker)", "ML")
add("machines_maximal", "Machines", "score ~ Machine + (Machine|Worker)", kr = TRUE)
add("machines_helmert", "Machines", "score ~ Machine + (1|Worker) + (1|Worker:Machine)",
    contrasts = list(Machine = "helmert"))

add("oats_slope", "Oats", "yield ~ nitro + (1|Block/Variety)", kr = TRUE)
add("oats_factorial", "Oats", "yield ~ Variety*factor(nitro) + (1|Block/Variety)")
add("oats_covariate_sum", "Oats", "yield ~ Variety*nitro + (1|Block/Variety)",
    contrasts = list(Variety = "sum"))
add("oats_poly", "Oats", "yield ~ poly(nitro, 2)*Variety + (1|Block/Variety)")
add("oats_separate_lines", "Oats",
    "yield ~ 0 + Variety + Variety:nitro + (1|Block/Variety)")
add("oats_random_slopes", "Oats", "yield ~ nitro + Variety + (nitro|Block)")
add("oats_ols", "Oats", "yield ~ Block + Variety*factor(nitro)")

add("orthodont_slopes", "Orthodont", "distance ~ age + (age|Subject)")
add("orthodont_slopes_ml", "Orthodont", "distance ~ age + (age|Subject)", "ML")
add("orthodont_sex", "Orthodont", "distance ~ age*Sex + (1|Subject)", kr = TRUE)
add("orthodont_sex_slopes", "Orthodont", "distance ~ age*Sex + (age|Subject)",
    kr = TRUE)
add("orthodont_centered", "Orthodont",
    "distance ~ I(age - 11)*Sex + (I(age - 11)|Subject)")
add("orthodont_sum", "Orthodont", "distance ~ age*Sex + (1|Subject)",
    contrasts = list(Sex = "sum"))

add("stroup", "stroup", "Y ~ A*B + (1|Block) + (1|A:Block)", kr = TRUE)
add("stroup_sum", "stroup", "Y ~ A*B + (1|Block) + (1|A:Block)",
    contrasts = list(A = "sum", B = "sum"))
add("stroup_ml", "stroup", "Y ~ A*B + (1|Block) + (1|A:Block)", "ML")

add("ham_factorial", "ham", paste("Informed.liking ~ Product*Information*Gender +",
    "(1|Product:Consumer) + (1|Consumer)"))
add("ham_age", "ham", "Informed.liking ~ Product*Age + (1|Consumer)")
add("ham_slopes", "ham",
    "Informed.liking ~ Product*Information + (Information|Consumer)")
add("carrots_slopes", "carrots",
    "Preference ~ sens2*Homesize + (1 + sens2|Consumer)")
add("carrots_no_intercept", "carrots",
    "Preference ~ 0 + sens2 + Homesize + (1 + sens2|Consumer)")
add("carrots_product", "carrots", "Preference ~ sens2*Homesize*sens1 + (1|Product)")
add("carrots_three_way", "carrots",
    "Preference ~ sens2*Frequency*Income + (1 + sens2|Consumer)")
add("carrots_crossed_slopes", "carrots",
    "Preference ~ sens1 + sens2 + (sens1 + sens2|Consumer) + (1|Product)")
add("tvbo_products", "TVbo", paste("Coloursaturation ~ TVset*Picture + (1|Assessor) +",
    "(1|Assessor:TVset) + (1|Assessor:Picture)"))
add("tvbo_vector", "TVbo", "Sharpness ~ TVset*Picture + (0 + TVset|Assessor)")
add("tvbo_maximal", "TVbo", "Noise ~ TVset + (TVset|Assessor) + (1|Assessor:Picture)")

add("assay", "Assay", paste("logDens ~ sample*dilut + (1|Block) + (1|Block:sample) +",
    "(1|Block:dilut)"))
add("bodyweight_slopes", "BodyWeight", "weight ~ Time*Diet + (Time|Rat)")
add("pixel", "Pixel", "pixel ~ day + I(day^2) + (day|Dog) + (1|Dog:Side)")
add("ratpup", "RatPupWeight", "weight ~ Treatment*sex + Lsize + (1|Litter)", kr = TRUE)
add("ratpup_helmert", "RatPupWeight", "weight ~ Treatment*sex + Lsize + (1|Litter)",
    contrasts = list(Treatment = "helmert", sex = "sum"))
add("nlschools_slopes", "nlschools", "lang ~ IQ + SES + COMB + (IQ|class)")
add("nlschools_intercept_ml", "nlschools", "lang ~ IQ*SES + GS + (1|class)", "ML")
add("petrol", "petrol", "Y ~ SG + VP + V10 + EP + (1|No)")

add("crossed_intercepts", "sim_crossed", "y ~ cond*x + (1|subj) + (1|item)")
add("crossed_maximal", "sim_crossed", "y ~ c*x + (c|subj) + (c|item)")
add("crossed_maximal_ml", "sim_crossed", "y ~ c*x + (c|subj) + (c|item)", "ML")
add("crossed_uncorrelated", "sim_crossed", "y ~ c*x + (c||subj) + (c||item)")
add("crossed_vector", "sim_crossed", "y ~ cond + x + (0 + cond|subj) + (1|item)")
add("crossed_three_slopes", "sim_crossed", "y ~ c*x + (c + x|subj) + (1|item)")

add("nested_unbalanced", "sim_nested", "score ~ treat + x + (1|school/class)",
    kr = TRUE)
add("nested_unbalanced_ml", "sim_nested", "score ~ treat + x + (1|school/class)", "ML")
add("nested_interaction", "sim_nested",
    "score ~ treat*x + (1|school) + (1|school:class)")
add("nested_slopes", "sim_nested", "score ~ treat + x + (x|school) + (1|school:class)")
add("nested_missing", "sim_nested", "score_na ~ treat*x_na + (1|school/class)")
add("nested_helmert", "sim_nested", "score ~ treat*x + (1|school/class)",
    contrasts = list(treat = "helmert"))

add("weights_intercept", "sim_weights", "y ~ x + (1|g)", weights = "w")
add("weights_slopes", "sim_weights", "y ~ x + (x|g)", weights = "w")
add("weights_slopes_ml", "sim_weights", "y ~ x + (x|g)", "ML", weights = "w")
add("offset_slopes", "sim_weights", "y ~ x + offset(z) + (x|g)")
add("weights_offset", "sim_weights", "y ~ x + offset(z) + (x||g)", weights = "w")
add("weights_wls", "sim_weights", "y ~ x + offset(z)", weights = "w")
add("weights_wls_ml", "sim_weights", "y ~ x", "ML", weights = "w")

add("singular_slopes", "sim_singular", "y ~ x + (x|g)")
add("singular_slopes_ml", "sim_singular", "y ~ x + (x|g)", "ML")
add("singular_extra_factor", "sim_singular", "y ~ x + (1|g) + (1|h)")
add("singular_maximal", "sim_singular", "y ~ x + (x|g) + (x|h)")

add("factorial_empty_cell", "sim_factorial", "y ~ a*b*c + (1|block)")
add("factorial_empty_cell_sum", "sim_factorial", "y ~ a*b*c + (1|block)",
    contrasts = list(a = "sum", b = "sum", c = "sum"))
add("factorial_two_way", "sim_factorial", "y ~ (a + b + c)^2 + (1|block)", kr = TRUE)
add("factorial_redundant", "sim_factorial", "y ~ a + dose + b + (1|block)")
add("factorial_ols", "sim_factorial", "y ~ block + a*b*c")

# ---- optimum -------------------------------------------------------------------------

# The best of several optimizers, each tightened, with variances that are nil put at 0
# and the rest brought to a stationary point by Newton's method.
optimize_tightly <- function(devfun) {
  lower <- environment(devfun)$lower
  start <- environment(devfun)$pp$theta
  quiet <- function(expr) suppressWarnings(suppressMessages(expr))
  bobyqa <- function(par, size) {
    quiet(minqa::bobyqa(par, devfun, lower = lower,
                        control = list(rhobeg = size, rhoend = 1e-9, maxfun = 1e5)))
  }
  runs <- list()
  first <- bobyqa(start, 0.2)
  runs$bobyqa <- list(par = first$par, fval = first$fval)
  other <- quiet(lme4::nloptwrap(start, devfun, lower = lower,
    upper = rep(Inf, length(start)),
    control = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-12, xtol_rel = 0,
                   ftol_abs = 1e-12, ftol_rel = 0, maxeval = 1e5)))
  runs$nloptwrap <- list(par = other$par, fval = other$fval)
  second <- bobyqa(ifelse(lower == 0, 0.3, 0.1), 0.05)
  runs$bobyqa_second_start <- list(par = second$par, fval = second$fval)
  simplex <- quiet(lme4::Nelder_Mead(devfun, start, lower = lower,
    control = list(maxfun = 1e4, FtolAbs = 1e-12, FtolRel = 1e-14, XtolRel = 1e-10)))
  runs$Nelder_Mead <- list(par = simplex$par, fval = simplex$fval)
  values <- vapply(runs, function(run) run$fval, 0)
  theta <- runs[[which.min(values)]]$par
  for (i in 1:3) {
    again <- bobyqa(theta, 1e-3)
    if (again$fval >= devfun(theta) - 1e-11) break
    theta <- again$par
  }
  best <- devfun(theta)
  free <- rep(TRUE, length(theta))
  small <- abs(theta) < ifelse(lower == 0, 1e-3, 1e-6)
  for (i in which(small)) {
    trial <- replace(theta, i, 0)
    if (devfun(trial) <= best + 1e-9) {
      theta <- trial
      free[i] <- FALSE
    }
  }
  theta <- newton(devfun, theta, free)
  gradient <- newton_gradient(devfun, theta, free)
  list(theta = theta, values = values, criterion = devfun(theta),
       gradient = if (length(gradient)) max(abs(gradient)) else 0)
}

newton_gradient <- function(devfun, theta, free) {
  if (!any(free)) return(numeric(0))
  numDeriv::grad(function(x) devfun(replace(theta, free, x)), theta[free])
}

newton <- function(devfun, theta, free) {
  if (!any(free)) return(theta)
  objective <- function(x) devfun(replace(theta, free, x))
  for (iteration in 1:4) {
    x <- theta[free]
    hessian <- numDeriv::hessian(objective, x)
    curvature <- eigen(hessian, symmetric = TRUE, only.values = TRUE)$values
    if (min(curvature) < 1e-7 * max(curvature)) break
    step <- -solve(hessian, numDeriv::grad(objective, x))
    if (max(abs(step)) > 1e-2 || objective(x + step) > objective(x) + 1e-9) break
    theta <- replace(theta, free, x + step)
    if (max(abs(step)) < 1e-10) break
  }
  theta
}

# An optimizer that stays where it is put: lmer is given the optimum found above.
stay <- function(fn, par, lower, upper, control) {
  list(par = par, fval = fn(par), conv = 0, feval = 1, message = "given")
}
control <- lmerControl(
  optimizer = "stay", restart_edge = FALSE, boundary.tol = 0, calc.derivs = FALSE,
  check.conv.singular = "ignore", check.rankX = "silent.drop.cols"
)

# ---- output --------------------------------------------------------------------------

text <- function(x) {
  x <- as.numeric(x)
  out <- sprintf("%.12g", x)
  out[is.na(x)] <- NA
  out
}
named <- function(x) as.list(setNames(text(x), names(x)))
rows <- function(...) {
  columns <- list(...)
  lapply(seq_along(columns[[1]]),
         function(i) lapply(columns, function(column) column[[i]]))
}
attempt <- function(expr) {
  tryCatch(expr, error = function(e) list(failed = conditionMessage(e)))
}

# Column of X -> the variables it is made of, and the level (contrast, power) of each.
column_parts <- function(columns, assign, term_labels) {
  lapply(seq_along(columns), function(j) {
    if (assign[j] == 0) return(list())
    names <- strsplit(term_labels[assign[j]], ":", fixed = TRUE)[[1]]
    pieces <- strsplit(columns[j], ":", fixed = TRUE)[[1]]
    Map(function(name, piece) {
      suffix <- substring(piece, nchar(name) + 1)
      list(name, if (nzchar(suffix)) suffix else NA)
    }, names, pieces, USE.NAMES = FALSE)
  })
}

fixed_table <- function(coefficients, ddf, X_columns, assign, term_labels) {
  position <- match(rownames(coefficients), X_columns)
  rows(
    name = rownames(coefficients),
    term = ifelse(assign[position] == 0, "(Intercept)",
                  c("", term_labels)[assign[position] + 1]),
    parts = column_parts(X_columns, assign, term_labels)[position],
    estimate = text(coefficients[, "Estimate"]),
    se = text(coefficients[, "Std. Error"]),
    df = text(ddf), t = text(coefficients[, "t value"]),
    p = text(coefficients[, "Pr(>|t|)"])
  )
}

anova_table <- function(fit, type, ddf) {
  said <- character()
  table <- withCallingHandlers(
    attempt(anova(fit, type = type, ddf = ddf)),
    message = function(m) {
      said <<- c(said, trimws(gsub("[[:space:]]+", " ", conditionMessage(m))))
      invokeRestart("muffleMessage")
    }
  )
  reason <- if (length(said)) paste(said, collapse = " ")
  if (!is.null(table$failed)) return(list(rows = NULL, reason = table$failed))
  if (is.null(table$DenDF))
    return(list(rows = NULL, reason = "not computed by lmerTest"))
  if (!nrow(table)) return(list(rows = list(), reason = "no term to test"))
  list(rows = rows(term = rownames(table), SumSq = text(table[["Sum Sq"]]),
                   MeanSq = text(table[["Mean Sq"]]), NumDF = text(table$NumDF),
                   DenDF = text(table$DenDF), F = text(table[["F value"]]),
                   p = text(table[["Pr(>F)"]])),
       reason = reason)
}

ranef_rows <- function(fit) {
  effects <- as.data.frame(ranef(fit, condVar = TRUE))
  keep <- unlist(lapply(split(seq_len(nrow(effects)), effects$grpvar), function(i) {
    levels <- levels(getME(fit, "flist")[[as.character(effects$grpvar[i[1]])]])
    i[as.character(effects$grp[i]) %in% head(levels, 10)]
  }), use.names = FALSE)
  effects <- effects[keep, ]
  rows(grp = as.character(effects$grpvar), term = as.character(effects$term),
       level = as.character(effects$grp), estimate = text(effects$condval),
       condSD = text(effects$condsd))
}

contrast_functions <- function(spec) {
  lapply(spec, function(kind) paste0("contr.", kind))
}

common <- function(model, data) {
  formula <- as.formula(model$formula, env = globalenv())
  used <- intersect(all.vars(formula), factor_columns[[model$dataset]])
  list(
    id = model$id, dataset = model$dataset, r_formula = model$formula,
    mixform_formula = model$formula, program = NA, method = model$method,
    weights = if (is.null(model$weights)) NA else model$weights,
    contrasts = model$contrasts, factors = as.list(used),
    levels = lapply(data[used], function(x) as.list(levels(x)))
  )
}

fit_mixed <- function(model, data) {
  assign("data_now", data, globalenv())
  formula <- as.formula(model$formula, env = globalenv())
  call <- bquote(lmerTest::lmer(.(formula), data = data_now,
                                REML = .(model$method == "REML")))
  if (!is.null(model$weights)) call$weights <- as.name(model$weights)
  if (!is.null(model$contrasts)) call$contrasts <- contrast_functions(model$contrasts)
  call$control <- quote(control)
  search <- call
  search[[1]] <- quote(lme4::lmer)
  search$devFunOnly <- TRUE
  optimum <- optimize_tightly(eval(search, globalenv()))
  call$start <- list(theta = optimum$theta)
  caught <- character()
  fit <- withCallingHandlers(eval(call, globalenv()), warning = function(w) {
    caught <<- c(caught, conditionMessage(w))
    invokeRestart("muffleWarning")
  })
  stopifnot(inherits(fit, "lmerModLmerTest"), isTRUE(all.equal(getME(fit, "theta"),
    optimum$theta, check.attributes = FALSE, tolerance = 1e-12)))
  describe_mixed(model, data, fit, optimum, caught)
}

describe_mixed <- function(model, data, fit, optimum, caught) {
  X <- getME(fit, "X")
  labels <- attr(terms(fit, fixed.only = TRUE), "term.labels")
  log_lik <- logLik(fit)
  stopifnot(abs(-2 * log_lik - optimum$criterion) < 1e-8)
  coefficients <- coef(summary(fit))
  components <- as.data.frame(VarCorr(fit))
  out <- common(model, data)
  out$program <- "lmerTest::lmer"
  out <- c(out, list(
    isSingular = isSingular(fit), criterion = text(optimum$criterion),
    logLik = text(log_lik), AIC = text(AIC(fit)), BIC = text(BIC(fit)),
    nobs = nobs(fit), npar = attr(log_lik, "df"), sigma = text(sigma(fit)),
    theta = named(getME(fit, "theta")),
    fixed = fixed_table(coefficients, coefficients[, "df"], colnames(X),
                        attr(X, "assign"), labels),
    aliased = as.list(names(attr(X, "col.dropped"))),
    varcorr = rows(grp = components$grp, var1 = components$var1,
                   var2 = components$var2, vcov = text(components$vcov),
                   sdcor = text(components$sdcor)),
    anova = sapply(c("I", "II", "III"), anova_table, fit = fit, ddf = "Satterthwaite",
                   simplify = FALSE),
    kenward_roger = if (model$kr) kenward_roger(fit),
    ranef = ranef_rows(fit), fitted = as.list(text(head(fitted(fit), 5))),
    vcov_varpar = apply(fit@vcov_varpar, 1, function(x) as.list(text(x))),
    by_optimizer = named(optimum$values),
    optimizer_spread = sprintf("%.2g", diff(range(optimum$values))),
    max_abs_gradient = sprintf("%.2g", optimum$gradient), warnings = as.list(caught)
  ))
  out
}

kenward_roger <- function(fit) {
  coefficients <- coef(summary(fit, ddf = "Kenward-Roger"))
  list(
    fixed = rows(name = rownames(coefficients),
                 se = text(sqrt(diag(as.matrix(pbkrtest::vcovAdj(fit))))),
                 df = text(coefficients[, "df"]), t = text(coefficients[, "t value"]),
                 p = text(coefficients[, "Pr(>|t|)"])),
    anova_III = anova_table(fit, "III", "Kenward-Roger")
  )
}

# A model without a bar: lm, with the restricted likelihood when the method is REML.
fit_linear <- function(model, data) {
  assign("data_now", data, globalenv())
  formula <- as.formula(model$formula, env = globalenv())
  call <- bquote(lm(.(formula), data = data_now))
  if (!is.null(model$weights)) call$weights <- as.name(model$weights)
  if (!is.null(model$contrasts)) call$contrasts <- contrast_functions(model$contrasts)
  fit <- eval(call, globalenv())
  restricted <- model$method == "REML"
  log_lik <- logLik(fit, REML = restricted)
  coefficients <- coef(summary(fit))
  dropped <- is.na(coef(fit))
  n <- nobs(fit)
  out <- common(model, data)
  out$program <- "lm"
  residual_ss <- sum(weighted.residuals(fit)^2)
  sigma <- sqrt(residual_ss / if (restricted) fit$df.residual else n)
  out <- c(out, list(
    isSingular = FALSE, criterion = text(-2 * log_lik), logLik = text(log_lik),
    AIC = if (restricted) NA else text(AIC(fit)),
    BIC = if (restricted) NA else text(BIC(fit)),
    nobs = n, npar = fit$rank + 1, sigma = text(sigma),
    theta = setNames(list(), character()),
    fixed = fixed_table(coefficients, rep(fit$df.residual, nrow(coefficients)),
                        colnames(model.matrix(fit)), fit$assign,
                        attr(terms(fit), "term.labels")),
    aliased = as.list(names(coef(fit))[dropped]),
    varcorr = rows(grp = "Residual", var1 = NA, var2 = NA, vcov = text(sigma^2),
                   sdcor = text(sigma)),
    anova = list(I = anova_linear(fit), II = anova_linear_by_difference(fit, "II"),
                 III = anova_linear_by_difference(fit, "III")),
    kenward_roger = NULL, ranef = list(), fitted = as.list(text(head(fitted(fit), 5))),
    vcov_varpar = NULL, by_optimizer = setNames(list(), character()),
    optimizer_spread = NA, max_abs_gradient = NA,
    warnings = list(),
    lm = list(residual_ss = text(residual_ss), logLik_ml = text(logLik(fit)),
              AIC_ml = text(AIC(fit)), BIC_ml = text(BIC(fit)),
              sigma_unbiased = text(summary(fit)$sigma),
              r_squared = text(summary(fit)$r.squared))
  ))
  out
}

anova_linear <- function(fit) {
  table <- anova(fit)
  residual <- nrow(table)
  table <- table[-residual, ]
  list(rows = rows(term = rownames(table), SumSq = text(table[["Sum Sq"]]),
                   MeanSq = text(table[["Mean Sq"]]), NumDF = text(table$Df),
                   DenDF = text(rep(fit$df.residual, nrow(table))),
                   F = text(table[["F value"]]), p = text(table[["Pr(>F)"]])),
       reason = NULL)
}

# Type II and III by differences of residual sums of squares: a term added to all terms
# that do not contain it (II), or to all other terms under contr.sum (III).
# Covariates in interactions with factors do not occur in these models.
anova_linear_by_difference <- function(fit, type) {
  if (anyNA(coef(fit)) && type == "III")
    return(list(rows = NULL, reason = "not computed for a rank-deficient lm"))
  factors <- attr(terms(fit), "factors")
  labels <- attr(terms(fit), "term.labels")
  coding <- lapply(attr(model.matrix(fit), "contrasts"), function(x) "contr.sum")
  X <- model.matrix(terms(fit), model.frame(fit),
                    contrasts.arg = if (length(coding)) coding)
  assign <- attr(X, "assign")
  w <- if (is.null(weights(fit))) rep(1, nrow(X)) else weights(fit)
  y <- model.response(model.frame(fit))
  offset <- model.offset(model.frame(fit))
  if (!is.null(offset)) y <- y - offset
  squares <- function(columns) {
    reduced <- lm.wfit(X[, columns, drop = FALSE], y, w)
    c(ss = sum(w * reduced$residuals^2), rank = reduced$rank)
  }
  tested <- vapply(seq_along(labels), function(i) {
    inside <- factors[, i] > 0
    shared <- colSums(factors[inside, , drop = FALSE] > 0)
    above <- if (type == "III") i else which(shared == sum(inside))
    without <- squares(!assign %in% above)
    with <- squares(!assign %in% setdiff(above, i))
    c(without["ss"] - with["ss"], with["rank"] - without["rank"])
  }, c(ss = 0, df = 0))
  den <- fit$df.residual
  mean_square <- tested["ss", ] / tested["df", ]
  f <- mean_square / (sum(weighted.residuals(fit)^2) / den)
  p <- pf(f, tested["df", ], den, lower.tail = FALSE)
  list(rows = rows(term = labels, SumSq = text(tested["ss", ]),
                   MeanSq = text(mean_square), NumDF = text(tested["df", ]),
                   DenDF = text(rep(den, length(f))),
                   F = text(f), p = text(p)),
       reason = NULL)
}

session <- function() {
  packages <- c("lme4", "lmerTest", "pbkrtest", "Matrix", "minqa", "nloptr", "numDeriv",
                "jsonlite")
  version <- function(p) as.character(packageVersion(p))
  list(R = R.version.string, platform = R.version$platform,
       BLAS = basename(extSoftVersion()[["BLAS"]]), LAPACK = La_version(),
       packages = as.list(sapply(packages, version)), contrasts = options()$contrasts,
       number_format = "%.12g")
}

to_json <- function(x) {
  jsonlite::toJSON(x, auto_unbox = TRUE, null = "null", na = "null", digits = NA)
}

fitted_models <- lapply(models, function(model) {
  began <- proc.time()[["elapsed"]]
  data <- tables[[model$dataset]]
  result <- if (grepl("|", model$formula, fixed = TRUE)) fit_mixed(model, data)
            else fit_linear(model, data)
  message(sprintf("%-28s %6.1f s  gradient %s  spread %s  %s", model$id,
    proc.time()[["elapsed"]] - began, result$max_abs_gradient, result$optimizer_spread,
    paste(result$warnings, collapse = "; ")))
  to_json(result)
})
connection <- file(output, "wb")
cat("{\"session\":", to_json(session()), ",\n\"models\":[\n",
    paste(unlist(fitted_models), collapse = ",\n"), "\n]}\n", sep = "",
    file = connection)
close(connection)
