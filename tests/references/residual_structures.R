# Fit models with residual structures by nlme and glmmTMB; write residual_structures.json
# and residual_structures.txt.
#
#   Rscript residual_structures.R <package data folder> [<test data folder>] [<id> ...]
#
# The package data folder is mixform/datasets. With ids only those models are fitted and
# printed, and nothing is written. README.md describes the output.

suppressPackageStartupMessages({
  library(nlme)
  library(glmmTMB)
})
options(contrasts = c("contr.treatment", "contr.poly"), width = 88, digits = 8)

arguments <- commandArgs(TRUE)
if (!length(arguments)) stop("usage: Rscript residual_structures.R <folder of CSVs>")
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
folders <- c(arguments[1], if (length(arguments) > 1) arguments[2] else
  file.path(here, "data"))
only <- arguments[-(1:2)]

# ---- data ----------------------------------------------------------------------------

# A table with the levels of its factors in the order given, and derived columns. Rows
# are kept in the order of the file, where the rows of a subject are adjacent.
read_table <- function(name, response, factors = list(), derived = list()) {
  paths <- file.path(folders, paste0(name, ".csv"))
  data <- read.csv(paths[file.exists(paths)][1], stringsAsFactors = FALSE)
  data$row <- seq_len(nrow(data)) - 1
  data <- data[!is.na(data[[response]]), ]
  for (column in names(derived))
    data[[column]] <- eval(parse(text = derived[[column]]), data)
  for (column in names(factors)) {
    levels <- factors[[column]]
    if (identical(levels, "seen")) levels <- unique(data[[column]])
    data[[column]] <- factor(data[[column]], levels = levels)
  }
  rownames(data) <- NULL
  data
}

# Columns that are computed from others, as R and pandas both read them.
derived_columns <- list(
  Orthodont = list(visit = "(age - 6) / 2"),
  Ovary = list(s = "sin(6.283185307179586 * Time)", c = "cos(6.283185307179586 * Time)")
)
datasets <- list(
  Orthodont = read_table("Orthodont", "distance",
    list(Subject = "seen", Sex = c("Male", "Female")), derived_columns$Orthodont),
  sim_visits = read_table("sim_visits", "y",
    list(id = "seen", arm = c("active", "control"), sex = c("F", "M"),
         v = paste0("v", 1:5))),
  sim_field = read_table("sim_field", "y",
    list(block = "seen", trt = c("a", "b", "c"))),
  Ovary = read_table("Ovary", "follicles", list(Mare = "seen"), derived_columns$Ovary),
  BodyWeight = read_table("BodyWeight", "weight",
    list(Rat = "seen", Diet = c("1", "2", "3"))),
  Wheat2 = local({
    d <- read_table("Wheat2", "yield", list(), list())
    d$variety <- factor(d$variety, levels = sort(unique(d$variety), method = "radix"))
    d
  }),
  fev = read_table("fev", "FEV1", list(USUBJID = "seen", ARMCD = c("PBO", "TRT"),
    AVISIT = paste0("VIS", 1:4)))
)
# What nlme and glmmTMB need and mixform does not: the visit as a factor, one coordinate
# pair a factor level, weights as variances, indicator columns of the strata.
with_helpers <- function(d, name) {
  visit <- c(Orthodont = "visit", sim_visits = "visit", fev = "VISITN")[name]
  if (!is.na(visit)) d$.v <- factor(d[[visit]])
  d$.all <- factor(1)
  if (name == "sim_visits") {
    d$.variance <- 1 / d$w
    d$.t <- numFactor(d$time)
  }
  if (name == "Ovary") d$.v <- factor(d$order)
  if (name == "sim_field") d$.p <- numFactor(d$east, d$north)
  if (name == "Wheat2") d$.p <- numFactor(d$latitude, d$longitude)
  if (name == "Orthodont")
    for (sex in levels(d$Sex)) for (v in 1:4)
      d[[paste0(".", sex, v)]] <- as.numeric(d$Sex == sex & d$visit == v)
  d
}
tables <- Map(with_helpers, datasets, names(datasets))

# ---- the covariance that a fit implies ------------------------------------------------

# nlme leaves groups of one row out of the list of a spatial structure.
block_diagonal <- function(parts, groups) {
  out <- diag(length(groups))
  for (g in names(parts)) {
    at <- which(groups == g)
    stopifnot(length(at) == nrow(parts[[g]]))
    out[at, at] <- parts[[g]]
  }
  out
}

# Var(e) of a gls or lme fit: sigma^2 D C D, D the inverse of nlme's weights.
residual_of_nlme <- function(fit, groups) {
  n <- fit$dims$N
  cs <- fit$modelStruct$corStruct
  C <- diag(n)
  if (!is.null(cs)) {
    parts <- corMatrix(cs)
    if (is.list(parts)) {
      names(parts) <- sub(".*/", "", names(parts))
      C <- block_diagonal(parts, groups)
    } else C <- parts
  }
  vs <- fit$modelStruct$varStruct
  D <- if (is.null(vs)) rep(1, n) else 1 / varWeights(vs)
  fit$sigma^2 * C * outer(D, D)
}

random_of_lme <- function(fit, data) {
  parts <- fit$modelStruct$reStruct
  V <- 0
  rows <- list()
  for (g in names(parts)) {
    G <- as.matrix(parts[[g]]) * fit$sigma^2
    Z <- model.matrix(formula(parts[[g]]), data)
    same <- outer(data[[g]], data[[g]], "==")
    V <- V + (Z %*% G %*% t(Z)) * same
    rows <- c(rows, covariance_rows(g, G, colnames(Z)))
  }
  list(V = V, rows = rows)
}

covariance_rows <- function(grp, G, names) {
  rows <- list()
  for (j in seq_along(names)) for (i in seq_len(j)) {
    rows[[length(rows) + 1]] <- list(grp = grp, var1 = plain(names[i]),
      var2 = if (i == j) NULL else plain(names[j]), vcov = number(G[i, j]))
  }
  rows
}

# One random term of glmmTMB: Z (n, c) and its covariance, with its size repeated.
term_of_tmb <- function(fit, k) {
  G <- VarCorr(fit)$cond[[k]]
  list(G = matrix(G, nrow(G)), names = rownames(G), grp = names(fit$modelInfo$reTrms$cond$cnms)[k])
}
V_of_tmb <- function(fit, which) {
  info <- fit$modelInfo$reTrms$cond
  Zt <- getME(fit, "Z")
  ends <- cumsum(vapply(fit$obj$env$data$terms, function(s)
    s$blockReps * s$blockSize, 0))
  starts <- c(0, ends)[seq_along(ends)]
  V <- 0
  for (k in which) {
    term <- fit$obj$env$data$terms[[k]]
    Z <- as.matrix(Zt[, (starts[k] + 1):ends[k], drop = FALSE])
    G <- term_of_tmb(fit, k)$G
    for (r in seq_len(term$blockReps)) {
      Zr <- Z[, (r - 1) * term$blockSize + seq_len(term$blockSize), drop = FALSE]
      V <- V + Zr %*% G %*% t(Zr)
    }
  }
  V
}

# ---- criterion, fixed effects --------------------------------------------------------

# lme4's -2 log L: constants included; REML with log|X'V^-1X| and (n - p) log 2 pi.
dense <- function(V, X, y, reml) {
  L <- t(chol(V))
  WX <- forwardsolve(L, X)
  Wy <- forwardsolve(L, y)
  XX <- crossprod(WX)
  beta <- solve(XX, crossprod(WX, Wy))
  n <- length(y) - if (reml) ncol(X) else 0
  criterion <- 2 * sum(log(diag(L))) + sum((Wy - WX %*% beta)^2) + n * log(2 * pi)
  if (reml) criterion <- criterion + as.numeric(determinant(XX)$modulus)
  list(criterion = criterion, beta = drop(beta), se = sqrt(diag(solve(XX))))
}

number <- function(x) sprintf("%.12g", x)
numbers <- function(x) vapply(x, number, "")

# R's coefficient names as formulaic writes them.
plain <- function(names) sub("^\\(Intercept\\)$", "Intercept", names)
spelling <- function(names, data, full) {
  one <- function(part) {
    for (f in names(Filter(is.factor, data))) {
      level <- substring(part, nchar(f) + 1)
      if (startsWith(part, f) && level %in% levels(data[[f]]))
        return(sprintf(if (f %in% full) "%s[%s]" else "%s[T.%s]", f, level))
    }
    gsub("\\s*([-+*/])\\s*", " \\1 ", part)
  }
  vapply(strsplit(plain(names), ":"), function(p)
    paste(vapply(p, one, ""), collapse = ":"), "")
}

# ---- programs ------------------------------------------------------------------------

gls_control <- glsControl(tolerance = 1e-11, msTol = 1e-13, maxIter = 500,
                          msMaxIter = 1000, opt = "nlminb")
lme_control <- lmeControl(tolerance = 1e-11, msTol = 1e-13, maxIter = 500,
                          msMaxIter = 1000, niterEM = 100, opt = "nlminb")
tmb_control <- glmmTMBControl(optCtrl = list(iter.max = 5000, eval.max = 5000,
                                             rel.tol = 1e-14, x.tol = 1e-12))

# Newton steps on glmmTMB's own criterion from where its optimizer stopped.
polish <- function(fit) {
  obj <- fit$obj
  par <- fit$fit$par
  for (step in 1:20) {
    g <- as.vector(obj$gr(par))
    H <- optimHess(par, obj$fn, obj$gr)
    move <- tryCatch(-solve(H, g), error = function(e) NULL)
    if (is.null(move) || obj$fn(par + move) > obj$fn(par) + 1e-10) break
    par <- par + move
    if (sum(move * -g) < 1e-13) break
  }
  value <- obj$fn(par)
  list(par = par, value = value, gradient = max(abs(obj$gr(par))))
}

fit_nlme <- function(m, data) {
  call <- m$nlme
  fun <- if (is.null(call$random)) "gls" else "lme"
  args <- c(list(as.formula(m$r_formula)), call,
            list(data = data, method = m$method,
                 control = if (fun == "gls") gls_control else lme_control))
  fit <- do.call(fun, args)
  V <- residual_of_nlme(fit, if (is.null(m$group)) NULL else data[[m$group]])
  random <- list()
  total <- V
  if (fun == "lme") {
    part <- random_of_lme(fit, data)
    total <- V + part$V
    random <- part$rows
  }
  X <- model.matrix(as.formula(m$r_formula), data)
  y <- data[[all.vars(as.formula(m$r_formula))[1]]]
  own <- dense(total, X, y, m$method == "REML")
  list(program = paste0("nlme::", fun), fit = fit, R = V, own = own, X = X,
       reported = -2 * as.numeric(logLik(fit)),
       se_reported = sqrt(diag(vcov(fit))), random = random,
       parameters = parameters_of_nlme(fit))
}

parameters_of_nlme <- function(fit) {
  out <- c(sigma = fit$sigma)
  cs <- fit$modelStruct$corStruct
  if (!is.null(cs)) {
    p <- coef(cs, unconstrained = FALSE)
    names(p) <- paste0("correlation ", if (is.null(names(p))) seq_along(p) else names(p))
    out <- c(out, p)
  }
  vs <- fit$modelStruct$varStruct
  if (!is.null(vs)) {
    p <- coef(vs, unconstrained = FALSE, allCoef = FALSE)
    if (length(p)) {
      names(p) <- paste0("relative SD ", if (is.null(names(p))) seq_along(p) else names(p))
      out <- c(out, p)
    }
  }
  out
}

fit_tmb <- function(m, data) {
  call <- m$tmb
  fit <- glmmTMB(as.formula(call$formula), data = data,
                 dispformula = if (is.null(call$disp)) ~1 else call$disp,
                 REML = m$method == "REML", control = tmb_control)
  best <- polish(fit)
  invisible(fit$obj$fn(best$par))
  # The parameters of the better point, also where REML integrates beta out.
  fit$fit$par <- best$par
  fit$obj$env$last.par.best <- fit$obj$env$last.par
  fit$fit$parfull <- fit$obj$env$last.par.best
  k <- seq_along(fit$obj$env$data$terms)
  residual <- k[k %in% call$residual]
  X <- getME(fit, "X")
  y <- model.response(fit$frame)
  phi <- fit$obj$env$report(fit$obj$env$last.par.best)
  etad <- drop(getME(fit, "Xd") %*% fit$obj$env$parList(best$par,
    fit$obj$env$last.par.best)$betad)
  variance <- if (identical(call$disp, ~0)) rep(exp(tmb_control$zerodisp_val), length(y))
    else exp(etad)
  R <- diag(variance)
  if (length(residual)) R <- R + V_of_tmb(fit, residual)
  V <- R
  rest <- setdiff(k, residual)
  random <- list()
  if (length(rest)) {
    V <- V + V_of_tmb(fit, rest)
    for (j in rest) {
      t <- term_of_tmb(fit, j)
      random <- c(random, covariance_rows(t$grp, t$G, t$names))
    }
  }
  own <- dense(V, X, y, m$method == "REML")
  list(program = "glmmTMB", fit = fit, R = R, own = own, X = X, reported = 2 * best$value,
       se_reported = sqrt(diag(vcov(fit)$cond)), random = random,
       parameters = c(gradient = best$gradient))
}

# ---- models --------------------------------------------------------------------------

models <- list()
add <- function(id, data, formula, method = "REML", residual = NULL, dispersion = NULL,
                weights = NULL, group = NULL, subject = NULL, nlme = NULL, tmb = NULL,
                full = character(), r_formula = sub(" \\+ \\([^|]*\\|[^)]*\\)", "", formula)) {
  stopifnot(!id %in% names(models))
  models[[id]] <<- list(id = id, data = data, formula = formula, method = method,
    residual = residual, dispersion = dispersion, weights = weights, group = group,
    subject = subject, nlme = nlme, tmb = tmb, full = full, r_formula = r_formula)
}
# glmmTMB: the structure as a random term, and no residual besides.
as_term <- function(fixed, term) list(formula = paste(fixed, "+", term), disp = ~0,
                                      residual = 1)

# Orthodont: 27 children, 4 visits, complete. Toeplitz for four visits is the
# autoregression of order 3.
f <- "distance ~ age * Sex"
o <- function(id, residual, nlme = NULL, tmb = NULL, method = "REML", ...)
  add(paste0("orthodont_", id), "Orthodont", f, method, residual = residual,
      group = "Subject", subject = "M01", nlme = nlme,
      tmb = if (!is.null(tmb)) as_term(f, tmb), ...)
by_visit <- varIdent(form = ~1 | .v)
for (method in c("REML", "ML")) {
  tag <- if (method == "ML") "_ml" else ""
  o(paste0("us", tag), "us(visit | Subject)",
    list(correlation = corSymm(form = ~visit | Subject), weights = by_visit),
    "us(0 + .v | Subject)", method)
  o(paste0("cs", tag), "cs(visit | Subject)",
    list(correlation = corCompSymm(form = ~1 | Subject)), NULL, method)
  o(paste0("ar1", tag), "ar1(visit | Subject)",
    list(correlation = corAR1(form = ~visit | Subject)), "ar1(0 + .v | Subject)", method)
}
o("csh", "csh(visit | Subject)", list(correlation = corCompSymm(form = ~1 | Subject),
  weights = by_visit), "cs(0 + .v | Subject)")
o("arh1", "arh1(visit | Subject)", list(correlation = corAR1(form = ~visit | Subject),
  weights = by_visit))
o("toep", "toep(visit | Subject)",
  list(correlation = corARMA(form = ~visit | Subject, p = 3)))
o("toeph", "toeph(visit | Subject)",
  list(correlation = corARMA(form = ~visit | Subject, p = 3), weights = by_visit),
  "toep(0 + .v | Subject)")
o("diag", "diag(visit | Subject)", list(weights = by_visit))
add("orthodont_us_by_sex", "Orthodont", "distance ~ 0 + Sex + Sex:age", "REML",
    residual = "us(visit | Sex/Subject)", group = "Subject", subject = "F01",
    full = "Sex", tmb = list(formula = paste("distance ~ 0 + Sex + Sex:age +",
      "us(0 + .Male1 + .Male2 + .Male3 + .Male4 | Subject) +",
      "us(0 + .Female1 + .Female2 + .Female3 + .Female4 | Subject)"),
      disp = ~0, residual = 1:2))
for (method in c("REML", "ML"))
  add(paste0("orthodont_dispersion", if (method == "ML") "_ml"), "Orthodont",
      "distance ~ age * Sex + (1 | Subject)", method, dispersion = "~ Sex",
      group = "Subject", subject = "F01",
      nlme = list(random = ~1 | Subject, weights = varIdent(form = ~1 | Sex)),
      tmb = list(formula = "distance ~ age * Sex + (1 | Subject)", disp = ~Sex))
add("orthodont_slope_dispersion", "Orthodont", "distance ~ age * Sex + (age | Subject)",
    "REML", dispersion = "~ Sex", group = "Subject", subject = "F01",
    nlme = list(random = ~age | Subject, weights = varIdent(form = ~1 | Sex)),
    tmb = list(formula = "distance ~ age * Sex + (age | Subject)", disp = ~Sex))
add("orthodont_gls_dispersion", "Orthodont", f, "ML", dispersion = "~ Sex",
    group = "Subject", subject = "F01",
    nlme = list(weights = varIdent(form = ~1 | Sex)),
    tmb = list(formula = f, disp = ~Sex))

# sim_visits: visits missing, irregular times, weights.
f <- "y ~ arm * v + x"
s <- function(id, residual, nlme = NULL, tmb = NULL, method = "REML", formula = f, ...)
  add(paste0("visits_", id), "sim_visits", formula, method, residual = residual,
      group = "id", subject = "p05", nlme = nlme,
      tmb = if (is.character(tmb)) as_term(formula, tmb) else tmb, ...)
visit <- ~visit | id
by_weight <- varFixed(~.variance)
by_sex <- varIdent(form = ~1 | sex)
for (method in c("REML", "ML")) {
  tag <- if (method == "ML") "_ml" else ""
  s(paste0("us", tag), "us(visit | id)", list(correlation = corSymm(form = visit),
    weights = by_visit), "us(0 + .v | id)", method)
  s(paste0("ar1", tag), "ar1(visit | id)", list(correlation = corAR1(form = visit)),
    "ar1(0 + .v | id)", method)
  s(paste0("toeph", tag), "toeph(visit | id)", list(correlation = corARMA(form = visit,
    p = 4), weights = by_visit), "toep(0 + .v | id)", method)
}
s("us_weights", "us(visit | id)", list(correlation = corSymm(form = visit),
  weights = varComb(by_visit, by_weight)), weights = "w")
s("cs", "cs(visit | id)", list(correlation = corCompSymm(form = ~1 | id)))
s("csh", "csh(visit | id)", list(correlation = corCompSymm(form = ~1 | id),
  weights = by_visit), "cs(0 + .v | id)")
s("arh1", "arh1(visit | id)", list(correlation = corAR1(form = visit),
  weights = by_visit))
s("toep", "toep(visit | id)", list(correlation = corARMA(form = visit, p = 4)))
s("diag", "diag(visit | id)", list(weights = by_visit))
s("car1", "car1(time | id)", list(correlation = corCAR1(form = ~time | id)),
  "ou(0 + .t | id)")
s("car1_ml", "car1(time | id)", list(correlation = corCAR1(form = ~time | id)),
  "ou(0 + .t | id)", "ML")
s("exp", "exp(time | id)", list(correlation = corExp(form = ~time | id)),
  "exp(0 + .t | id)")
s("exp_nugget", "exp(time | id, nugget=True)",
  list(correlation = corExp(c(3, 0.1), form = ~time | id, nugget = TRUE)),
  list(formula = paste(f, "+ exp(0 + .t | id)"), disp = ~1, residual = 1))
s("gau", "gau(time | id)", list(correlation = corGaus(form = ~time | id)))
s("ar1_dispersion", "ar1(visit | id)", list(correlation = corAR1(form = visit),
  weights = by_sex), dispersion = "~ sex")
s("us_dispersion", "us(visit | id)", list(correlation = corSymm(form = visit),
  weights = varComb(by_visit, by_sex)), dispersion = "~ sex")
s("ar1_dispersion_slope", "ar1(visit | id)", list(correlation = corAR1(form = visit),
  weights = varExp(form = ~visit)), dispersion = "~ visit")
s("lme_ar1", "ar1(visit | id)", list(random = ~1 | id,
  correlation = corAR1(form = visit)), list(formula =
  paste(f, "+ ar1(0 + .v | id) + (1 | id)"), disp = ~0, residual = 1),
  formula = paste(f, "+ (1 | id)"))
s("lme_ar1_dispersion", "ar1(visit | id)", list(random = ~1 | id,
  correlation = corAR1(form = visit), weights = by_sex), dispersion = "~ sex",
  formula = paste(f, "+ (1 | id)"))
s("lme_ar1_weights_ml", "ar1(visit | id)", list(random = ~1 | id,
  correlation = corAR1(form = visit), weights = by_weight), NULL, "ML", weights = "w",
  formula = paste(f, "+ (1 | id)"))
s("lme_diag", "diag(visit | id)", list(random = ~1 | id, weights = by_visit),
  formula = paste(f, "+ (1 | id)"))
s("lme_dispersion_slope", NULL, list(random = ~1 | id, weights = varExp(form = ~visit)),
  list(formula = paste(f, "+ (1 | id)"), disp = ~visit), dispersion = "~ visit",
  formula = paste(f, "+ (1 | id)"))
s("lme_dispersion_weights", NULL, list(random = ~1 | id,
  weights = varComb(by_sex, by_weight)), dispersion = "~ sex", weights = "w",
  formula = paste(f, "+ (1 | id)"))

# sim_field: coordinates in four blocks.
f <- "y ~ trt"
p <- function(id, residual, nlme = NULL, tmb = NULL, method = "REML", ...)
  add(paste0("field_", id), "sim_field", f, method, residual = residual,
      group = "block", subject = "b2", nlme = nlme, tmb = tmb, ...)
at <- ~east + north | block
p("exp", "exp(east + north | block)", list(correlation = corExp(form = at)),
  as_term(f, "exp(0 + .p | block)"))
p("exp_ml", "exp(east + north | block)", list(correlation = corExp(form = at)),
  as_term(f, "exp(0 + .p | block)"), "ML")
p("exp_nugget", "exp(east + north | block, nugget=True)",
  list(correlation = corExp(c(2, 0.2), form = at, nugget = TRUE)),
  list(formula = paste(f, "+ exp(0 + .p | block)"), disp = ~1, residual = 1))
p("gau", "gau(east + north | block)", list(correlation = corGaus(form = at)),
  as_term(f, "gau(0 + .p | block)"))
p("gau_nugget", "gau(east + north | block, nugget=True)",
  list(correlation = corGaus(c(2, 0.2), form = at, nugget = TRUE)))
p("mat", "mat(east + north | block)", NULL, as_term(f, "mat(0 + .p | block)"))

# Pinheiro and Bates: Ovary 5.3 and 5.4, BodyWeight 5.2, Wheat2 5.4.
f <- "follicles ~ s + c"
ovary <- function(id, residual, correlation, tmb = NULL, ...)
  add(paste0("ovary_", id), "Ovary", paste(f, "+ (1 | Mare)"),
      residual = residual, group = "Mare", subject = "4",
      nlme = list(random = ~1 | Mare, correlation = correlation),
      tmb = tmb, ...)
ovary("ar1", "ar1(order | Mare)", corAR1(form = ~order | Mare),
      list(formula = paste(f, "+ ar1(0 + .v | Mare) + (1 | Mare)"), disp = ~0,
           residual = 1))
ovary("car1", "car1(Time | Mare)", corCAR1(form = ~Time | Mare))
ovary("exp_nugget", "exp(Time | Mare, nugget=True)",
      corExp(c(0.3, 0.2), form = ~Time | Mare, nugget = TRUE))
add("bodyweight_car1", "BodyWeight", "weight ~ Time * Diet + (Time | Rat)",
    residual = "car1(Time | Rat)", group = "Rat", subject = "3",
    nlme = list(random = ~Time | Rat, correlation = corCAR1(form = ~Time | Rat)))
add("wheat2_exp", "Wheat2", "yield ~ variety", residual = "exp(latitude + longitude)",
    nlme = list(correlation = corExp(5, form = ~latitude + longitude)))
add("wheat2_gau_nugget", "Wheat2", "yield ~ variety",
    residual = "gau(latitude + longitude, nugget=True)",
    nlme = list(correlation = corGaus(c(10, 0.2), form = ~latitude + longitude,
                                      nugget = TRUE)))

# fev: the models that SAS PROC MIXED fitted, see residual_structures_sas.json.
for (arm in c("1", "ARMCD")) for (method in c("REML", "ML")) {
  if (arm == "ARMCD" && method == "ML") next
  f <- paste("FEV1 ~", arm)
  m <- function(id, residual, correlation, weights, tmb = NULL)
    add(paste0("fev_", id, if (arm == "ARMCD") "_arm", if (method == "ML") "_ml"), "fev",
        f, method, residual = residual, group = "USUBJID", subject = "PT8",
        nlme = if (!is.null(correlation)) Filter(Negate(is.null),
          list(correlation = correlation, weights = weights)),
        tmb = if (!is.null(tmb)) as_term(f, tmb))
  visit <- ~VISITN | USUBJID
  m("us", "us(AVISIT | USUBJID)", corSymm(form = visit), by_visit,
    "us(0 + .v | USUBJID)")
  m("cs", "cs(AVISIT | USUBJID)", corCompSymm(form = ~1 | USUBJID), NULL)
  m("csh", "csh(AVISIT | USUBJID)", corCompSymm(form = ~1 | USUBJID), by_visit,
    "cs(0 + .v | USUBJID)")
  m("ar1", "ar1(VISITN | USUBJID)", corAR1(form = visit), NULL, "ar1(0 + .v | USUBJID)")
  m("arh1", "arh1(VISITN | USUBJID)", corAR1(form = visit), by_visit)
  m("toep", "toep(AVISIT | USUBJID)", corARMA(form = visit, p = 3), NULL)
  m("toeph", "toeph(AVISIT | USUBJID)", corARMA(form = visit, p = 3), by_visit,
    "toep(0 + .v | USUBJID)")
  m("exp", "exp(VISITN + VISITN2 | USUBJID)",
    corExp(1.2, form = ~VISITN + VISITN2 | USUBJID), NULL)
  m("gau", "gau(VISITN + VISITN2 | USUBJID)",
    corGaus(1.2, form = ~VISITN + VISITN2 | USUBJID), NULL)
}

# ---- run -----------------------------------------------------------------------------

run <- function(m) {
  data <- tables[[m$data]]
  fits <- list()
  if (!is.null(m$nlme)) fits <- c(fits, list(fit_nlme(m, data)))
  if (!is.null(m$tmb)) fits <- c(fits, list(fit_tmb(m, data)))
  own <- vapply(fits, function(f) f$own$criterion, 0)
  best <- fits[[which.min(own)]]
  X <- best$X
  logXX <- as.numeric(determinant(crossprod(X))$modulus)
  programs <- lapply(fits, function(f) {
    # What separates the program's own -2 log likelihood from lme4's convention.
    gap <- f$reported - f$own$criterion
    named <- c("none" = 0, "- log|X'X|" = -logXX, "+ log|X'X|" = logXX)
    k <- which.min(abs(gap - named))
    cat(sprintf("%-30s %-11s %-7s %16.8f %12.2e  %s\n", m$id, f$program, m$method,
                f$own$criterion, gap - named[k], names(named)[k]))
    list(program = f$program, criterion = number(f$own$criterion),
         reported = number(f$reported), convention = names(named)[k],
         unexplained = number(gap - named[[k]]),
         se_ratio = number(unname(f$se_reported / f$own$se)[1]),
         parameters = as.list(numbers(f$parameters)))
  })
  # Of the first rows of a subject, or of the field.
  rows <- if (is.null(m$subject)) 1:6 else head(which(data[[m$group]] == m$subject), 6)
  R <- best$R[rows, rows, drop = FALSE]
  cat("\n")
  for (f in fits) {
    if (inherits(f$fit, "glmmTMB")) print(f$fit$fit$par) else print(f$fit$modelStruct)
  }
  print(cbind(estimate = best$own$beta, se = best$own$se))
  cat("\n")
  list(id = m$id, data = m$data, derived = derived_columns[[m$data]],
       formula = m$formula, residual = m$residual, dispersion = m$dispersion,
       weights = m$weights, method = m$method,
       factors = lapply(Filter(is.factor, datasets[[m$data]][
         intersect(all.vars(as.formula(m$r_formula)), names(datasets[[m$data]]))]), levels),
       n = nrow(data), p = ncol(X), criterion = number(best$own$criterion),
       best_program = best$program, spread = number(diff(range(own))),
       programs = programs,
       fixed = Map(function(name, b, se) list(name = name, estimate = number(b),
         se = number(se)), unname(spelling(colnames(X),
         datasets[[m$data]], m$full)), unname(best$own$beta), unname(best$own$se),
         USE.NAMES = FALSE),
       random = best$random,
       covariance = list(subject = m$subject, rows = data$row[rows],
         matrix = lapply(seq_len(nrow(R)), function(i) numbers(R[i, ]))))
}

if (length(only)) {
  for (id in only) str(run(models[[id]]), max.level = 2)
} else {
  sink(file.path(here, "residual_structures.txt"))
  entries <- lapply(models, run)
  print(sessionInfo())
  sink()
  session <- list(R = R.version.string, packages = sapply(c("nlme", "glmmTMB", "TMB",
    "Matrix", "jsonlite"), function(p) as.character(packageVersion(p))),
    number_format = "%.12g")
  text <- jsonlite::toJSON(list(session = lapply(session, as.list),
    models = unname(entries)), auto_unbox = TRUE, null = "null", pretty = 1)
  writeLines(text, file.path(here, "residual_structures.json"))
}
