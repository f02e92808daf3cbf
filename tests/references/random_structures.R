# Fit models with structured covariances of random coefficients by glmmTMB and nlme; write
# random_structures.json and random_structures.txt, and the simulated data.
#
#   Rscript random_structures.R [<test data folder>]
#
# glmmTMB's cs and toep have a variance for each coefficient (csh and toeph here); with
# `map` holding the log standard deviations equal they have one. README.md describes the
# output.

suppressPackageStartupMessages({
  library(nlme)
  library(glmmTMB)
  library(jsonlite)
})
options(width = 88, digits = 8)
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
arguments <- commandArgs(TRUE)
folder <- if (length(arguments)) arguments[1] else file.path(here, "data")

# ---- data: 36 varieties at 5 times (and places), twice, a tenth missing ----------------

set.seed(20240511)
position <- c(0, 1, 2.5, 4, 7)
k <- length(position)
sds <- c(0.8, 1.1, 1.0, 1.5, 1.3)
Sigma <- outer(sds, sds) * 0.7^abs(outer(1:k, 1:k, "-"))
b <- matrix(rnorm(36 * k), 36) %*% chol(Sigma)
data <- expand.grid(rep = 1:2, time = 1:k, g = 1:36)
data$h <- sample(1:12, nrow(data), replace = TRUE)
data$x <- round(rnorm(nrow(data)), 3)
data$y <- round(20 + 0.5 * data$x + 0.4 * data$time + b[cbind(data$g, data$time)] +
  0.6 * rnorm(12)[data$h] + rnorm(nrow(data)), 4)
data$pos <- position[data$time]
data <- data[sort(sample(nrow(data), 324)), c("y", "x", "time", "pos", "g", "h")]
write.csv(data, file.path(folder, "sim_positions.csv"), row.names = FALSE)

data <- transform(data, f = factor(time), g = factor(g), h = factor(h), p = numFactor(pos))
machines <- as.data.frame(Machines)

# ---- models ----------------------------------------------------------------------------

tmb <- function(formula, reml = TRUE, ...)
  glmmTMB(formula, data, REML = reml, ...)
same <- function(n_correlations)
  list(theta = factor(c(rep(1, k), 1 + seq_len(n_correlations))))
models <- list(
  list("ar1", "y ~ x + ar1(0 + factor(time) | g)", function()
    tmb(y ~ x + ar1(0 + f | g))),
  list("ar1_ml", "y ~ x + ar1(0 + factor(time) | g)", function()
    tmb(y ~ x + ar1(0 + f | g), FALSE)),
  list("ar1_crossed", "y ~ x + ar1(0 + factor(time) | g) + (1 | h)", function()
    tmb(y ~ x + ar1(0 + f | g) + (1 | h))),
  list("cs", "y ~ x + cs(0 + factor(time) | g)", function()
    tmb(y ~ x + cs(0 + f | g), map = same(1))),
  list("cs_nlme", "y ~ x + cs(0 + factor(time) | g)", function()
    lme(y ~ x, data, list(g = pdCompSymm(~ f - 1)))),
  list("cs_machines", "score ~ Machine + cs(0 + Machine | Worker)", function()
    lme(score ~ Machine, machines, list(Worker = pdCompSymm(~ Machine - 1)))),
  list("csh", "y ~ x + csh(0 + factor(time) | g)", function()
    tmb(y ~ x + cs(0 + f | g))),
  list("csh_ml_crossed", "y ~ x + csh(0 + factor(time) | g) + (1 | h)", function()
    tmb(y ~ x + cs(0 + f | g) + (1 | h), FALSE)),
  list("toep", "y ~ x + toep(0 + factor(time) | g)", function()
    tmb(y ~ x + toep(0 + f | g), map = same(k - 1))),
  list("toeph", "y ~ x + toeph(0 + factor(time) | g)", function()
    tmb(y ~ x + toep(0 + f | g))),
  list("exp", "y ~ x + exp(0 + factor(pos) | g)", function()
    tmb(y ~ x + exp(0 + p | g))),
  list("exp_ml", "y ~ x + exp(0 + factor(pos) | g) + (1 | h)", function()
    tmb(y ~ x + exp(0 + p | g) + (1 | h), FALSE)),
  list("rr1", "y ~ x + rr(0 + factor(time) | g, d = 1)", function()
    tmb(y ~ x + rr(0 + f | g, d = 1))),
  list("rr2", "y ~ x + rr(0 + factor(time) | g, d = 2) + (1 | h)", function()
    tmb(y ~ x + rr(0 + f | g, d = 2) + (1 | h)))
)

printed <- function(values) format(as.vector(values), digits = 12, trim = TRUE)

record <- function(model) {
  fit <- model[[3]]()
  nlme <- inherits(fit, "lme")
  if (nlme) {
    beta <- fixef(fit); se <- sqrt(diag(vcov(fit))); sigma <- fit$sigma
    V <- getVarCov(fit)
  } else {
    beta <- fixef(fit)$cond; se <- sqrt(diag(vcov(fit)$cond)); sigma <- sigma(fit)
    V <- VarCorr(fit)$cond[[1]]
  }
  V <- matrix(as.numeric(V), nrow(V))
  cat("\n#", model[[1]], "\n")
  print(if (nlme) fit else summary(fit))
  list(
    id = model[[1]], formula = model[[2]],
    method = if (nlme) fit$method else if (fit$modelInfo$REML) "REML" else "ML",
    data = if (model[[1]] == "cs_machines") "machines" else "sim_positions",
    package = if (nlme) "nlme" else "glmmTMB",
    criterion = printed(-2 * as.numeric(logLik(fit))),
    beta = printed(beta), se = printed(se), sigma = printed(sigma),
    covariance = lapply(seq_len(nrow(V)), function(i) printed(V[i, ]))
  )
}

sink(file.path(here, "random_structures.txt"))
cat(R.version.string, "\nglmmTMB", format(packageVersion("glmmTMB")), "nlme",
    format(packageVersion("nlme")), "\n")
records <- lapply(models, record)
sink()
write_json(list(
  source = "random_structures.R",
  version = paste0(R.version.string, ", glmmTMB ", packageVersion("glmmTMB"), ", nlme ",
                   packageVersion("nlme")),
  models = records
), file.path(here, "random_structures.json"), auto_unbox = TRUE, pretty = TRUE)
