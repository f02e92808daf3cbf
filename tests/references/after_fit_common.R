# What the after_fit_*.R programs share: data and models of lme4_models.R, fits with
# tight optimizers, and the record of each table. Sourced by after_fit.R.

suppressPackageStartupMessages({
  library(lme4)
  library(lmerTest)
  library(emmeans)
  library(multcomp)
})
options(contrasts = c("contr.treatment", "contr.poly"), width = 100, digits = 7,
        show.signif.stars = FALSE,
        emmeans = list(msg.interaction = FALSE))

# The data, models and optimizer of lme4_models.R: the top-level definitions named here
# and its calls of add(), without the rest of that program.
borrowed <- c("factor_columns", "level_orders", "natural_order", "read_data", "tables",
              "models", "add", "optimize_tightly", "newton", "newton_gradient")
for (expression in parse(file.path(here, "lme4_models.R"))) {
  assigns <- as.character(expression[[1]])[1] == "<-" &&
    as.character(expression[[2]])[1] %in% borrowed
  if (assigns || identical(expression[[1]], quote(add))) eval(expression, globalenv())
}
for (name in names(tables)) assign(name, tables[[name]], globalenv())

# ---- further models -----------------------------------------------------------------

add("oats_log", "Oats", "log(yield) ~ Variety*nitro + (1|Block/Variety)")
add("carrots_small", "carrots", "Preference ~ sens2*Homesize + (1|Consumer)")
add("ham_step", "ham", paste("Informed.liking ~ Product*Information*Gender*Age +",
    "(1|Consumer) + (1|Product:Consumer) + (1|Information:Consumer)"))
add("carrots_step", "carrots", paste("Preference ~ sens1 + sens2*Homesize +",
    "(1 + sens2|Consumer) + (1|Product)"))
add("tvbo_step", "TVbo", paste("Sharpness ~ TVset*Picture + (1|Assessor) +",
    "(1|Assessor:TVset) + (1|Assessor:Picture)"))
add("ratpup_log", "RatPupWeight", "log(weight) ~ Treatment*sex + Lsize + (1|Litter)")
add("oats_sqrt", "Oats", "sqrt(yield) ~ Variety + factor(nitro) + (1|Block/Variety)")
add("pastes_log_cask", "Pastes", "log(strength) ~ cask + (1|batch)")
add("pixel_sides", "Pixel", "pixel ~ Side*(day + I(day^2)) + (1|Dog) + (1|Dog:Side)")
add("oats_poly_additive", "Oats", "yield ~ poly(nitro, 2) + Variety + (1|Block/Variety)")
add("ratpup_ml", "RatPupWeight", "weight ~ Treatment*sex + Lsize + (1|Litter)", "ML")
add("ratpup_additive", "RatPupWeight", "weight ~ Treatment + sex + Lsize + (1|Litter)")
add("ratpup_no_sex", "RatPupWeight", "weight ~ Treatment + Lsize + (1|Litter)")
add("orthodont_parallel", "Orthodont", "distance ~ age + Sex + (1|Subject)")
add("cake_factorial_ml", "cake", "angle ~ recipe*temperature + (1|recipe:replicate)", "ML")
add("crossed_no_item", "sim_crossed", "y ~ cond*x + (1|subj)")
add("orthodont_sex_ml", "Orthodont", "distance ~ age*Sex + (1|Subject)", "ML")
add("machines_nested_ml", "Machines", "score ~ Machine + (1|Worker/Machine)", "ML")

# ---- fits ----------------------------------------------------------------------------

# lme4's interface to optimize_tightly, so that refits (ranova, drop1, step, anova) are
# as tight as the first fit.
tight <- function(fn, par, lower, upper, control) {
  devfun <- function(theta) fn(theta)
  environment(devfun) <- list2env(list(fn = fn, lower = lower, pp = list(theta = par)),
                                  parent = environment())
  optimum <- optimize_tightly(devfun)
  list(par = optimum$theta, fval = optimum$criterion, conv = 0, feval = 1,
       message = "tight")
}
control <- lmerControl(
  optimizer = "tight", restart_edge = FALSE, boundary.tol = 0, calc.derivs = FALSE,
  check.conv.singular = "ignore", check.rankX = "silent.drop.cols"
)

model_call <- function(model, fitter = quote(lmerTest::lmer)) {
  formula <- as.formula(model$formula, env = globalenv())
  call <- bquote(.(fitter)(.(formula), data = .(as.name(model$dataset)),
                           REML = .(model$method == "REML"), control = control))
  if (!is.null(model$weights)) call$weights <- as.name(model$weights)
  if (!is.null(model$contrasts))
    call$contrasts <- lapply(model$contrasts, function(kind) paste0("contr.", kind))
  call
}

fits <- new.env()
fit_of <- function(id) {
  if (is.null(fits[[id]])) {
    model <- models[[id]]
    if (is.null(model)) stop("no model ", id)
    fits[[id]] <- eval(model_call(model), globalenv())
  }
  fits[[id]]
}

# ---- record --------------------------------------------------------------------------

text <- function(x) {
  out <- if (is.numeric(x)) sprintf("%.10g", x)
         else if (is.logical(x)) ifelse(x, "TRUE", "FALSE") else as.character(x)
  out[is.na(x)] <- NA
  out
}

# Any table -> a list of rows; numbers as printed strings, row names under "row".
rows_of <- function(value) {
  if (inherits(value, "emmGrid") || inherits(value, "emm_list")) value <- summary(value)
  if (is.null(dim(value))) {
    labels <- if (is.null(names(value))) seq_along(value) else names(value)
    value <- data.frame(value = unclass(as.vector(value)), row.names = NULL)
    value <- cbind(row = as.character(labels), value)
  } else {
    labels <- rownames(value)
    value <- as.data.frame(value, optional = TRUE)
    if (!is.null(labels) && !identical(labels, as.character(seq_along(labels))))
      value <- cbind(row = labels, value)
  }
  value <- lapply(value, text)
  lapply(seq_along(value[[1]]), function(i) lapply(value, `[[`, i))
}

tables_made <- list()
raw <- file(raw_output, "wb")

# Evaluate `call` (text, in which m is the fit of the model) and keep its table.
# `shape` turns the value into a table where it is not one.
record <- function(id, model, kind, call, args = list(), shape = identity,
                   note = NULL) {
  stopifnot(!id %in% names(tables_made))
  chosen <- models[[model]]
  m <- fit_of(model)
  said <- character()
  value <- withCallingHandlers(eval(parse(text = call), list(m = m), globalenv()),
    warning = function(w) {
      said <<- c(said, conditionMessage(w))
      invokeRestart("muffleWarning")
    },
    message = function(w) {
      said <<- c(said, trimws(conditionMessage(w)))
      invokeRestart("muffleMessage")
    })
  printed <- capture.output(print(value))
  if (length(printed) > 24)
    printed <- c(head(printed, 20), sprintf("... and %d lines", length(printed) - 20))
  writeLines(c(sprintf("[%s]  %s", id, model), paste(">", strsplit(call, "\n")[[1]]), printed,
               if (length(said)) paste("said:", unique(said)), ""), raw)
  tables_made[[id]] <<- list(
    id = id, kind = kind, model = model, data = chosen$dataset,
    formula = chosen$formula, method = chosen$method,
    weights = if (is.null(chosen$weights)) NA else chosen$weights,
    call = gsub("[[:space:]]+", " ", call), args = if (length(args)) args,
    note = if (is.null(note)) NA else note, said = as.list(unique(said)),
    rows = rows_of(shape(value))
  )
  message(sprintf("%-40s %3d rows", id, length(tables_made[[id]]$rows)))
  invisible(value)
}

# The models by name, as the raw output calls them.
list_models <- function(ids) {
  vapply(models[ids], function(x) sprintf("%s: %s  %s%s  data %s", x$id, x$formula,
    x$method, if (is.null(x$weights)) "" else paste(", weights", x$weights), x$dataset), "")
}

# What a Python test needs to fit a model: as an entry of lme4_models.json.
describe <- function(model) {
  used <- intersect(all.vars(as.formula(model$formula)),
                    factor_columns[[model$dataset]])
  list(id = model$id, dataset = model$dataset, mixform_formula = model$formula,
       method = model$method,
       weights = if (is.null(model$weights)) NA else model$weights,
       contrasts = model$contrasts, factors = as.list(used),
       levels = lapply(tables[[model$dataset]][used], function(x) as.list(levels(x))))
}

to_json <- function(x) {
  jsonlite::toJSON(x, auto_unbox = TRUE, null = "null", na = "null", digits = NA)
}
