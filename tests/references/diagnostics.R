# Diagnostics of lme4 fits: diagnostics.json (numbers as printed strings) and
# diagnostics.txt (the session).
#
#   Rscript diagnostics.R <package data folder> [<output folder>]
#
# cooks.distance, residuals, influence(groups =), rePCA: lme4. Robust covariances and
# tests: clubSandwich. R2 and ICC: performance. Rows whose number is a multiple of 7
# are left out of the models marked "unbalanced".

suppressPackageStartupMessages({
  library(lme4)
  library(clubSandwich)
  library(performance)
})
arguments <- commandArgs(TRUE)
if (!length(arguments)) stop("usage: Rscript diagnostics.R <folder of package CSVs>")
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
folder <- if (length(arguments) > 1) arguments[2] else here

read <- function(name, factors, unbalanced = FALSE) {
  data <- read.csv(file.path(arguments[1], paste0(name, ".csv")))
  for (column in factors) data[[column]] <- factor(data[[column]])
  if (unbalanced) data[seq_len(nrow(data)) %% 7 != 0, ] else data
}
control <- lmerControl(optimizer = "bobyqa",
                       optCtrl = list(rhoend = 1e-11, maxfun = 1e5),
                       calc.derivs = FALSE, check.conv.singular = "ignore")

models <- list(
  sleep = list(data = "sleepstudy", factors = "Subject", unbalanced = FALSE,
               formula = "Reaction ~ Days + (Days | Subject)", groups = "Subject"),
  sleep_weighted = list(data = "sleepstudy", factors = "Subject", unbalanced = TRUE,
                        formula = "Reaction ~ Days + (Days | Subject)",
                        weights = "Days", groups = "Subject"),
  sleep_quadratic = list(data = "sleepstudy", factors = "Subject", unbalanced = TRUE,
                         formula = "Reaction ~ Days + I(Days^2) + (Days | Subject)",
                         groups = "Subject", test = 2:3),
  orthodont = list(data = "Orthodont", factors = c("Subject", "Sex"),
                   unbalanced = TRUE, formula = "distance ~ age * Sex + (age | Subject)",
                   groups = "Subject", test = 3:4),
  oats = list(data = "Oats", factors = c("Block", "Variety"), unbalanced = TRUE,
              formula = "yield ~ Variety + nitro + (1 | Block/Variety)",
              groups = "Block", test = 2:3),
  penicillin = list(data = "Penicillin", factors = c("plate", "sample"),
                    unbalanced = TRUE,
                    formula = "diameter ~ 1 + (1 | plate) + (1 | sample)",
                    groups = "sample", crossed = TRUE)
)

text <- function(x) {
  out <- sprintf("%.12g", as.numeric(x))
  out[is.na(as.numeric(x))] <- NA
  out
}
table_of <- function(x) {
  x <- as.matrix(x)
  list(rows = rownames(x), columns = colnames(x),
       values = lapply(seq_len(nrow(x)), function(i) as.list(text(x[i, ]))))
}

results <- list()
for (id in names(models)) {
  model <- models[[id]]
  d <- read(model$data, model$factors, model$unbalanced)
  formula <- as.formula(model$formula)
  if (is.null(model$weights)) {
    m <- lmer(formula, d, control = control)
  } else {
    d$w <- 1 + d[[model$weights]]
    m <- lmer(formula, d, weights = w, control = control)
  }
  i <- influence(m, groups = model$groups)
  out <- list(id = id, data = model$data, factors = as.list(model$factors),
              unbalanced = model$unbalanced, formula = model$formula,
              weights = if (is.null(model$weights)) NA else model$weights,
              groups = model$groups, theta = text(getME(m, "theta")),
              cooks = text(cooks.distance(m)), hat = text(hatvalues(m)),
              scaled = text(residuals(m, "pearson", scaled = TRUE)),
              dfbeta = table_of(dfbeta(i)),
              # lme4's method fails for one fixed effect
              dfbetas = if (length(fixef(m)) > 1) table_of(dfbetas(i)),
              variances = table_of(i[[grep("var.cov.comps\\[", names(i))]]))
  pca <- rePCA(m)
  out$pca <- lapply(pca, function(x)
    list(sdev = text(x$sdev), rotation = table_of(abs(x$rotation))))
  if (is.null(model$weights)) {
    r2 <- r2_nakagawa(m)
    icc <- icc(m)
    grouped <- icc(m, by_group = TRUE)
    out$fit <- list(marginal = text(r2$R2_marginal),
                    conditional = text(r2$R2_conditional),
                    adjusted = text(icc$ICC_adjusted),
                    unadjusted = text(icc$ICC_unadjusted))
    if (!any(grepl("Days |age ", model$formula)))
      out$fit$by_group <- setNames(as.list(text(grouped$ICC)), grouped$Group)
  }
  if (is.null(model$crossed) && is.null(model$weights)) {
    out$robust <- lapply(c("CR0", "CR2"), function(kind) {
      V <- vcovCR(m, type = kind)
      t <- coef_test(m, vcov = V, test = "Satterthwaite")
      list(kind = kind, V = table_of(as.matrix(V)), df = text(t$df_Satt),
           p = text(t$p_Satt),
           test = if (!is.null(model$test)) {
             w <- Wald_test(m, constrain_zero(model$test), vcov = V, test = "HTZ")
             list(rows = model$test, F = text(w$Fstat), den_df = text(w$df_denom),
                  p = text(w$p_val))
           })
    })
  }
  results[[id]] <- out
}
json <- jsonlite::toJSON(list(models = unname(results)), auto_unbox = TRUE, null = "null",
                         na = "null", pretty = FALSE)
writeLines(json, file.path(folder, "diagnostics.json"))
writeLines(capture.output(print(sessionInfo())), file.path(folder, "diagnostics.txt"))
