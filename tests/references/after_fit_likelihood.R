# lme4: likelihood ratio tests, profiles, intervals. Sourced by after_fit.R.

# ---- likelihood ratio tests ----------------------------------------------------------

compare_of <- function(id, ids, refit = TRUE) {
  call <- sprintf("anova(%s%s)", paste(sprintf("fit_of(\"%s\")", ids), collapse = ", "),
                  if (refit) "" else ", refit = FALSE")
  record(paste0("compare_", id), ids[length(ids)], "compare", call,
         list(models = as.list(ids), refit = refit),
         shape = function(value) cbind(formula = sub("^[^\n]*: ", "", rownames(value)),
                                       as.data.frame(value, optional = TRUE)))
}
three <- c("sleepstudy_intercept", "sleepstudy_uncorrelated", "sleepstudy_slopes")
compare_of("sleepstudy_refit", three)
compare_of("sleepstudy_reml", three, refit = FALSE)
compare_of("sleepstudy_ml", paste0(three, "_ml"))
compare_of("pastes_ml", c("pastes_interaction_ml", "pastes_nested_ml"))
compare_of("cake_ml", c("cake_additive_ml", "cake_factorial_ml"))
compare_of("ratpup", c("ratpup_no_sex", "ratpup_additive", "ratpup"))
compare_of("orthodont", c("orthodont_parallel", "orthodont_sex", "orthodont_sex_slopes"))
compare_of("nested", c("nested_unbalanced", "nested_interaction"))
compare_of("crossed_reml", c("crossed_no_item", "crossed_intercepts"), refit = FALSE)
compare_of("machines_reml", c("machines_intercept", "machines_nested", "machines_maximal"),
           refit = FALSE)
compare_of("weights", c("weights_intercept", "weights_slopes"))
compare_of("singular_reml", c("singular_extra_factor", "singular_maximal"), refit = FALSE)

# ---- Wald ----------------------------------------------------------------------------

for (id in c("sleepstudy_slopes", "ratpup", "nested_unbalanced_ml"))
  record(paste0("wald_", id), id, "wald_interval",
         "confint(m, method = \"Wald\", parm = \"beta_\")", list(level = 0.95))
record("wald_90_machines_nested", "machines_nested", "wald_interval",
       "confint(m, method = \"Wald\", parm = \"beta_\", level = 0.9)", list(level = 0.9))

# ---- profiles (lme4 profiles the ML criterion, of REML fits as well) ------------------

profiles <- new.env()
profile_of <- function(m) {
  id <- paste(deparse1(getCall(m)), collapse = "")
  if (is.null(profiles[[id]]))
    profiles[[id]] <- profile(m, optimizer = "bobyqa", signames = FALSE,
                              delta.cutoff = 1 / 16, maxpts = 400,
                              control = list(rhoend = 1e-8))
  profiles[[id]]
}
for (id in c("dyestuff_ml", "penicillin_ml", "pastes_nested_ml", "sleepstudy_slopes_ml",
             "sleepstudy_intercept_ml", "sleepstudy_uncorrelated_ml", "orthodont_sex_ml",
             "dyestuff2_ml", "machines_nested_ml", "nested_unbalanced_ml")) {
  for (level in c(0.95, if (id %in% c("sleepstudy_slopes_ml", "dyestuff2_ml")) c(0.5, 0.9)))
    record(sprintf("profile_%s%s", id, if (level == 0.95) "" else paste0("_", 100 * level)),
           id, "profile_interval", sprintf("confint(profile_of(m), level = %s)", level),
           list(level = level))
}
record("profile_reml_by_ml", "sleepstudy_slopes", "departure", "confint(profile_of(m))",
       list(level = 0.95), note = "lme4 profiles the ML criterion of a REML fit")

# zeta at about six points of each parameter, with the other parameters there
zeta_of <- function(id) {
  record(paste0("zeta_", id), id, "profile_zeta", "as.data.frame(profile_of(m))",
         shape = function(value) {
           chosen <- lapply(split(seq_len(nrow(value)), value$.par), function(rows) {
             near <- rows[abs(value$.zeta[rows]) < 3.2]
             near[unique(round(seq(1, length(near), length.out = 6)))]
           })
           chosen <- value[unlist(chosen, use.names = FALSE), ]
           rownames(chosen) <- NULL
           chosen
         })
}
zeta_of("sleepstudy_slopes_ml")
zeta_of("penicillin_ml")

# ---- profiles by hand ----------------------------------------------------------------

# The criterion that was fitted, REML or ML, as a function of standard deviations,
# correlations and log(sigma) in the order of `labels`: lme4's devfun with sigma freed.
free_criterion <- function(m) {
  call <- getCall(m)
  call[[1]] <- quote(lme4::lmer)
  call$devFunOnly <- TRUE
  devfun <- eval(call, globalenv())
  n <- nobs(m) - if (isREML(m)) length(fixef(m)) else 0
  sizes <- lengths(getME(m, "cnms"))
  sd <- label <- list()
  for (j in seq_along(sizes)) {
    S <- VarCorr(m)[[j]]
    below <- lower.tri(S)
    R <- attr(S, "correlation")
    names <- colnames(S)
    group <- names(VarCorr(m))[j]
    sd[[j]] <- c(attr(S, "stddev"), R[below])
    label[[j]] <- c(sprintf("sd_%s|%s", names, group),
                    if (any(below)) sprintf("cor_%s.%s|%s", names[row(S)[below]],
                                            names[col(S)[below]], group))
  }
  to_theta <- function(phi) unlist(lapply(seq_along(sizes), function(j) {
    k <- sizes[j]
    own <- phi[sum(lengths(sd)[seq_len(j - 1)]) + seq_along(sd[[j]])]
    R <- diag(k)
    R[lower.tri(R)] <- own[-seq_len(k)]
    L <- diag(own[seq_len(k)], k) %*% t(chol(R + t(R) - diag(k))) / exp(phi[length(phi)])
    L[lower.tri(L, diag = TRUE)]
  }))
  value <- function(phi) {
    correlations <- phi[grep("^cor_", labels)]
    if (any(abs(correlations) >= 1)) return(1e10)
    profiled <- devfun(to_theta(phi))
    ss <- environment(devfun)$resp$wrss() + environment(devfun)$pp$sqrL(1)
    sigma2 <- exp(2 * phi[length(phi)])
    profiled + n * log(sigma2 / (ss / n)) + ss / sigma2 - n
  }
  labels <- c(unlist(label), "sigma")
  list(value = value, labels = labels, best = c(unlist(sd), log(sigma(m))))
}

# The least criterion with parameter j at a value. Correlations are searched as atanh(r),
# from several starts: the minimum may be at -1 or 1.
profiled_value <- function(criterion, curvature, j, at) {
  best <- criterion$best
  is_cor <- grepl("^cor_", criterion$labels)[-j]
  inside <- function(x) replace(x, is_cor, tanh(x[is_cor]) * (1 - 1e-12))
  others <- function(x)
    criterion$value(replace(replace(best, j, at), seq_along(best)[-j], inside(x)))
  nearby <- best[-j] - (at - best[j]) * solve(curvature[-j, -j], curvature[-j, j])
  starts <- list(nearby, best[-j])
  for (r in if (any(is_cor)) c(-0.9, 0, 0.9))
    starts <- c(starts, list(replace(best[-j], is_cor, r)))
  values <- vapply(starts, function(start) {
    if (any(abs(start[is_cor]) >= 1)) return(Inf)
    x <- replace(start, is_cor, atanh(start[is_cor]))
    for (size in c(0.05, 1e-4)) {
      found <- minqa::bobyqa(x, others, control = list(
        rhobeg = size * max(1e-2, min(abs(x))), rhoend = 1e-9, maxfun = 1e5))
      x <- found$par
    }
    found$fval
  }, 0)
  min(values)
}

# zeta at four points of each parameter, or where zeta is -1.96 and 1.96. NA: the limit
# would lie beyond 0 (or beyond a correlation of 1).
by_hand <- function(m, limits = FALSE) {
  criterion <- free_criterion(m)
  best <- criterion$best
  least <- criterion$value(best)
  curvature <- numDeriv::hessian(criterion$value, best)
  se <- sqrt(2 * diag(solve(curvature)))
  rows <- lapply(seq_along(best), function(j) {
    label <- criterion$labels[j]
    out <- if (label == "sigma") exp else identity
    zeta <- function(at) sign(at - best[j]) *
      sqrt(max(0, profiled_value(criterion, curvature, j, at) - least))
    lowest <- if (grepl("^sd_", label)) 0 else if (grepl("^cor_", label)) -0.9999 else -Inf
    highest <- if (grepl("^cor_", label)) 0.9999 else Inf
    if (!limits) {
      at <- best[j] + 0.8 * c(-2, -1, 1, 2) * se[j]
      at <- at[at > lowest & at < highest]
      return(data.frame(parameter = label, value = out(at), zeta = vapply(at, zeta, 0)))
    }
    limit <- function(side) {
      end <- best[j] + side * se[j]
      target <- side * qnorm(0.975)
      repeat {
        end <- min(highest, max(lowest, end + side * se[j]))
        if (abs(zeta(end)) > abs(target)) break
        if (end %in% c(lowest, highest)) return(NA)
      }
      out(uniroot(function(at) zeta(at) - target, sort(c(best[j], end)), tol = 1e-7)$root)
    }
    data.frame(parameter = label, lower = limit(-1), upper = limit(1))
  })
  do.call(rbind, rows)
}
for (id in c("dyestuff", "penicillin", "pastes_nested", "sleepstudy_slopes",
             "machines_nested", "dyestuff2", "dyestuff2_ml", "weights_slopes_ml"))
  record(paste0("zeta_by_hand_", id), id, "profile_by_hand", "by_hand(m)")
for (id in c("dyestuff", "penicillin", "sleepstudy_slopes", "orthodont_slopes_ml",
             "dyestuff2", "dyestuff2_ml", "sleepstudy_slopes_ml"))
  record(paste0("limits_by_hand_", id), id, "limits_by_hand", "by_hand(m, limits = TRUE)",
         list(level = 0.95))

# A fixed effect held at a value is an offset: the ML criterion of the rest.
fixed_by_hand <- function(m, steps = c(-2, 1, 3)) {
  X <- getME(m, "X")
  V <- as.matrix(vcov(m))
  rows <- lapply(seq_len(ncol(X)), function(j) {
    values <- fixef(m)[j] + steps * sqrt(V[j, j])
    zeta <- vapply(values, function(at) {
      rows <- model.frame(m)
      rows$held <- X[, j] * at
      rows$response <- getME(m, "y")
      rows$weight <- weights(m)
      for (i in seq_len(ncol(X))) rows[[paste0("column", i)]] <- X[, i]
      bars <- vapply(findbars(formula(m)), function(b) sprintf("(%s)", deparse1(b)), "")
      rest <- reformulate(c("0", if (ncol(X) > 1) paste0("column", seq_len(ncol(X))[-j]),
                            bars, "offset(held)"), "response")
      held <- lme4::lmer(rest, rows, REML = FALSE, weights = weight, control = control)
      sqrt(-2 * as.numeric(logLik(held)) + 2 * as.numeric(logLik(m)))
    }, 0)
    data.frame(parameter = colnames(X)[j], value = values, zeta = sign(steps) * zeta)
  })
  out <- do.call(rbind, rows)
  rownames(out) <- NULL
  out
}
for (id in c("sleepstudy_slopes_ml", "orthodont_slopes_ml", "nested_unbalanced_ml",
             "weights_slopes_ml", "penicillin_ml"))
  record(paste0("fixed_by_hand_", id), id, "profile_by_hand", "fixed_by_hand(m)")
