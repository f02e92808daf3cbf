# emmeans: contrasts of means, their adjustment, letters; multcomp. Sourced by
# after_fit.R, after after_fit_means.R.

# `call` is the emmGrid of contrasts; p of the multivariate t distribution is added with
# the df of each row and to about 1e-5, where emmeans truncates df and stops at 1e-3.
contrast_of <- function(id, model, specs, method = "pairwise", by = NULL, at = NULL,
                        weights = NULL, ddf = "satterthwaite", adjust = NULL,
                        type = NULL, joint = FALSE, options = list(), note = NULL) {
  call <- sprintf("contrast(%s, %s%s)", emmeans_call(specs, by, at, weights, ddf),
                  deparse1(method),
                  paste(vapply(names(options), function(n) given(n, options[[n]]), ""),
                        collapse = ""))
  call <- sprintf("summary(%s, infer = c(TRUE, TRUE)%s%s%s)", call,
                  given("adjust", adjust), given("type", type),
                  if (joint) ", by = NULL" else "")
  args <- list(specs = specs, by = by, at = at, weights = weights, ddf = ddf,
               method = method, adjust = adjust, type = type, joint = joint,
               options = if (length(options)) options)
  if (is.list(method)) args$method <- lapply(method, as.list)
  record(paste0("contrast_", id), model, "contrast", call, lists(args), note = note)
}

# P(max |T_i| > |t_j|) for each j, T multivariate t with correlation R: the normal
# probability, integrated over the residual scale s = sqrt(chi^2 / nu).
multivariate_t <- function(t, nu, R) {
  normal <- function(q) {
    set.seed(1)
    mvtnorm::pmvnorm(rep(-q, length(t)), rep(q, length(t)), corr = R, keepAttr = FALSE,
                     algorithm = mvtnorm::GenzBretz(maxpts = 1e6, abseps = 1e-7))
  }
  vapply(seq_along(t), function(j) {
    if (is.na(t[j])) return(NA_real_)
    if (!is.finite(nu[j])) return(1 - normal(abs(t[j])))
    ends <- qchisq(c(1e-12, 1 - 1e-12), nu[j]) / nu[j]
    log_s <- seq(0.5 * log(ends[1]), 0.5 * log(ends[2]), length.out = 33)
    density <- dchisq(nu[j] * exp(2 * log_s), nu[j]) * 2 * nu[j] * exp(2 * log_s)
    inside <- vapply(abs(t[j]) * exp(log_s), normal, 0)
    1 - sum(inside * density) * diff(log_s[1:2])
  }, 0)
}
mvt_of <- function(id, model, specs, method, by = NULL, ddf = "satterthwaite",
                   options = list()) {
  call <- sprintf("contrast(%s, %s%s)", emmeans_call(specs, by, NULL, NULL, ddf),
                  deparse1(method),
                  paste(vapply(names(options), function(n) given(n, options[[n]]), ""),
                        collapse = ""))
  record(paste0("mvt_", id), model, "mvt",
         sprintf("with_mvt(%s)", call),
         lists(list(specs = specs, by = by, ddf = ddf, method = method, adjust = "mvt",
                    options = if (length(options)) options)))
}
with_mvt <- function(contrasts) {
  table <- as.data.frame(summary(contrasts, adjust = "none"))
  V <- vcov(contrasts)
  families <- contrasts@misc$by.vars
  families <- if (is.null(families)) rep(1, nrow(table)) else table[[families]]
  table$mvt <- NA_real_
  for (family in unique(families)) {
    i <- which(families == family)
    table$mvt[i] <- multivariate_t(table$t.ratio[i], table$df[i], cov2cor(V[i, i]))
  }
  table$emmeans.mvt <- as.data.frame(summary(contrasts, adjust = "mvt"))$p.value
  table
}

# ---- adjustments ---------------------------------------------------------------------

adjustments <- c("none", "tukey", "sidak", "holm", "bonferroni", "fdr", "scheffe")
for (adjust in adjustments) {
  contrast_of(paste0("ergostool_", adjust), "ergostool", "Type", adjust = adjust)
  if (adjust %in% c("tukey", "fdr"))
    contrast_of(paste0("ham_", adjust), "ham_factorial", "Product", adjust = adjust)
}
for (adjust in c("tukey", "holm", "sidak"))
  contrast_of(paste0("nested_kr_", adjust), "nested_unbalanced", "treat",
              ddf = "kenward-roger", adjust = adjust)
for (adjust in c("tukey", "holm"))
  contrast_of(paste0("pastes_as_", adjust), "pastes_cask", "cask", ddf = "asymptotic",
              adjust = adjust)

# ---- methods -------------------------------------------------------------------------

for (case in list(c("pastes", "pastes_cask", "cask"),
                  c("machines", "machines_nested", "Machine"),
                  c("machines_maximal", "machines_maximal", "Machine"),
                  c("ratpup", "ratpup", "Treatment"), c("tvbo", "tvbo_products", "TVset"),
                  c("oats", "oats_factorial", "nitro"))) {
  contrast_of(paste0(case[1], "_tukey"), case[2], case[3], adjust = "tukey")
  contrast_of(paste0(case[1], "_kr"), case[2], case[3], ddf = "kenward-roger")
}
for (method in c("revpairwise", "trt.vs.ctrl", "trt.vs.ctrlk", "poly", "consec", "mean_chg",
                 "eff", "del.eff")) {
  adjust <- if (method %in% c("consec", "mean_chg")) "holm"
  contrast_of(paste0("oats_", method), "oats_factorial", "nitro", method, adjust = adjust)
  if (method %in% c("trt.vs.ctrl", "eff"))
    contrast_of(paste0("ergostool_", method), "ergostool", "Type", method, adjust = adjust)
}
contrast_of("ergostool_ref_3", "ergostool", "Type", "trt.vs.ctrl", options = list(ref = 3))
contrast_of("ratpup_ref_none", "ratpup", "Treatment", "trt.vs.ctrl", adjust = "none")
contrast_of("oats_poly_holm", "oats_factorial", "nitro", "poly", adjust = "holm")
contrast_of("ratpup_custom", "ratpup", "Treatment",
            list(treated = c(-1, 0.5, 0.5), dose = c(0, -1, 1)))
contrast_of("tvbo_custom_sidak", "tvbo_products", "TVset",
            list("1 - others" = c(1, -0.5, -0.5), "2 - 3" = c(0, 1, -1)), adjust = "sidak",
            ddf = "kenward-roger")

# ---- families ------------------------------------------------------------------------

contrast_of("ratpup_by_sex", "ratpup", "Treatment", by = "sex")
contrast_of("ratpup_by_sex_joint", "ratpup", "Treatment", by = "sex", joint = TRUE,
            adjust = "holm")
contrast_of("ratpup_by_sex_sidak", "ratpup", "Treatment", by = "sex", joint = TRUE,
            adjust = "sidak")
contrast_of("ratpup_sex_by_treatment", "ratpup", "sex", by = "Treatment")
contrast_of("ratpup_cells", "ratpup", c("Treatment", "sex"))
contrast_of("oats_by_variety", "oats_factorial", "nitro", by = "Variety",
            ddf = "kenward-roger")
contrast_of("oats_by_variety_ctrl", "oats_factorial", "nitro", "trt.vs.ctrl", by = "Variety")
contrast_of("oats_by_variety_poly", "oats_factorial", "nitro", "poly", by = "Variety")
contrast_of("stroup_by_b", "stroup", "A", by = "B", adjust = "bonferroni")
contrast_of("stroup_cells", "stroup", c("A", "B"), adjust = "fdr")
contrast_of("orthodont_by_age", "orthodont_sex_slopes", "Sex", by = "age",
            at = list(age = c(8, 14)), ddf = "kenward-roger")
contrast_of("cake_temp", "cake_covariate", "temp", at = list(temp = c(175, 200, 225)))
contrast_of("ratpup_cells_weights", "ratpup", "Treatment", weights = "cells")
contrast_of("two_way_proportional", "factorial_two_way", "a", weights = "proportional")
contrast_of("empty_a", "factorial_empty_cell", "a")
contrast_of("empty_by_b", "factorial_empty_cell", "a", by = "b", adjust = "holm")
contrast_of("crossed", "crossed_intercepts", "cond", ddf = "kenward-roger")

# ---- transformed responses -----------------------------------------------------------

for (type in c("link", "response")) {
  contrast_of(paste0("ratpup_log_", type), "ratpup_log", "Treatment", by = "sex",
              type = type)
  contrast_of(paste0("pastes_log_", type), "pastes_log_cask", "cask", type = type,
              adjust = "holm")
  contrast_of(paste0("ratpup_log_ctrl_", type), "ratpup_log", "Treatment", "trt.vs.ctrl",
              type = type)
  contrast_of(paste0("oats_sqrt_", type), "oats_sqrt", "Variety", type = type)
  contrast_of(paste0("ratpup_log_eff_", type), "ratpup_log", "Treatment", "eff", type = type)
}

# ---- multivariate t ------------------------------------------------------------------

mvt_of("ergostool_ctrl", "ergostool", "Type", "trt.vs.ctrl")
mvt_of("ergostool_pairs", "ergostool", "Type", "pairwise")
mvt_of("ratpup_ctrl", "ratpup", "Treatment", "trt.vs.ctrl", ddf = "kenward-roger")
mvt_of("ratpup_pairs", "ratpup", "Treatment", "pairwise")
mvt_of("ham_ctrl", "ham_factorial", "Product", "trt.vs.ctrl")
mvt_of("pastes_ctrl", "pastes_cask", "cask", "trt.vs.ctrl")
mvt_of("oats_consec", "oats_factorial", "nitro", "consec")
mvt_of("nested_by", "ratpup", "Treatment", "trt.vs.ctrl", by = "sex")
mvt_of("two_way_eff", "factorial_two_way", "a", "eff")

# ---- letters -------------------------------------------------------------------------

letters_of <- function(id, model, specs, by = NULL, ddf = "satterthwaite",
                       adjust = "tukey", alpha = 0.05) {
  call <- sprintf("cld(%s, Letters = letters, adjust = \"%s\", alpha = %s)",
                  emmeans_call(specs, by, NULL, NULL, ddf), adjust, alpha)
  record(paste0("letters_", id), model, "letters", call,
         lists(list(specs = specs, by = by, ddf = ddf, adjust = adjust, alpha = alpha)))
}
if (requireNamespace("multcompView", quietly = TRUE)) {
  letters_of("ergostool", "ergostool", "Type")
  letters_of("pastes", "pastes_cask", "cask")
  letters_of("oats", "oats_factorial", "nitro")
  letters_of("oats_cells", "oats_factorial", c("Variety", "nitro"))
  letters_of("ratpup_by_sex", "ratpup", "Treatment", by = "sex", ddf = "kenward-roger")
  letters_of("tvbo", "tvbo_products", "TVset", adjust = "holm")
  letters_of("machines", "machines_nested", "Machine", adjust = "none")
  letters_of("ham_cells", "ham_factorial", c("Product", "Information"), adjust = "none")
  letters_of("tvbo_cells", "tvbo_products", c("TVset", "Picture"), alpha = 0.3)
  letters_of("stroup_cells", "stroup", c("A", "B"))
}

# ---- multcomp ------------------------------------------------------------------------

exact <- "test = adjusted(\"single-step\", maxpts = 1e6, abseps = 1e-6)"
glht_table <- function(value) data.frame(
  contrast = names(value$test$coefficients), estimate = value$test$coefficients,
  SE = value$test$sigma, ratio = value$test$tstat, p = as.vector(value$test$pvalues),
  row.names = NULL)
for (case in list(list("ergostool", "ergostool", "Type", 24),
                  list("ratpup", "ratpup_additive", "Treatment", 25),
                  list("machines", "machines_nested", "Machine", 10),
                  list("pastes", "pastes_cask", "cask", 48),
                  list("nested", "nested_unbalanced", "treat", 32))) {
  for (type in c("Tukey", "Dunnett")) for (den_df in list(NULL, case[[4]])) {
    if (is.null(den_df) && case[[1]] %in% c("ergostool", "machines")) next
    record(sprintf("glht_%s_%s%s", tolower(type), case[[1]],
                   if (is.null(den_df)) "" else "_t"), case[[2]], "glht",
           sprintf("summary(glht(m, linfct = mcp(%s = \"%s\")%s), %s)", case[[3]], type,
                   given("df", den_df), exact),
           list(specs = case[[3]], method = type,
                ddf = if (is.null(den_df)) "Inf" else as.character(den_df)),
           shape = glht_table)
  }
}
