# Packages around lme4: performance (R2, ICC), clubSandwich, broom.mixed, glmmTMB.
# Sourced by after_fit.R; what is not installed is left out.

has <- function(package) requireNamespace(package, quietly = TRUE)

# ---- R2 and ICC ----------------------------------------------------------------------

if (has("performance")) for (id in c(
    "sleepstudy_intercept", "sleepstudy_slopes", "sleepstudy_slopes_ml", "penicillin",
    "ratpup", "nested_unbalanced", "nested_slopes", "orthodont_sex", "oats_factorial",
    "crossed_three_slopes", "machines_maximal", "carrots_slopes")) {
  record(paste0("r2_", id), id, "r2",
         "unlist(unclass(performance::r2_nakagawa(m))[c(\"R2_marginal\", \"R2_conditional\")])")
  record(paste0("icc_", id), id, "icc",
         "unlist(unclass(performance::icc(m))[c(\"ICC_adjusted\", \"ICC_unadjusted\")])")
}

# ---- cluster-robust covariance -------------------------------------------------------

if (has("clubSandwich")) for (case in list(
    c("sleepstudy_slopes", "Subject"), c("sleepstudy_intercept", "Subject"),
    c("nested_unbalanced", "school"), c("ratpup", "Litter"),
    c("orthodont_sex_slopes", "Subject"), c("sleepstudy_slopes_ml", "Subject")))
  for (type in c("CR0", "CR2")) {
    if (type == "CR2")
      record(paste0("robust_vcov_cr2_", case[1]), case[1], "robust_vcov",
             "as.matrix(clubSandwich::vcovCR(m, type = \"CR2\"))",
             list(type = type, cluster = case[2]),
             shape = function(value) unclass(value)[, , drop = FALSE])
    record(sprintf("robust_t_%s_%s", tolower(type), case[1]), case[1], "robust_t",
           sprintf("clubSandwich::coef_test(m, vcov = \"%s\", test = \"Satterthwaite\")",
                   type), list(type = type, cluster = case[2]),
           shape = function(value) as.data.frame(unclass(value)))
  }

# ---- broom.mixed ---------------------------------------------------------------------

if (has("broom.mixed")) {
  suppressPackageStartupMessages(library(broom.mixed))
  for (id in c("sleepstudy_slopes", "ratpup", "penicillin_ml")) {
    record(paste0("tidy_fixed_", id), id, "tidy",
           "as.data.frame(tidy(m, effects = \"fixed\", conf.int = TRUE))",
           list(effects = "fixed", conf_int = TRUE))
    record(paste0("tidy_pars_", id), id, "tidy",
           "as.data.frame(tidy(m, effects = \"ran_pars\"))", list(effects = "ran_pars"))
    record(paste0("tidy_vals_", id), id, "tidy",
           "head(as.data.frame(tidy(m, effects = \"ran_vals\")), 12)",
           list(effects = "ran_vals"))
    record(paste0("glance_", id), id, "glance", "as.data.frame(glance(m))")
    record(paste0("augment_", id), id, "augment", "head(as.data.frame(augment(m)), 10)")
  }
}

# ---- standard errors of fitted values ------------------------------------------------

# glmmTMB's SE of X beta + Z b, by ML. `se`: variances held at their estimates, so the
# joint uncertainty of beta and b alone. `se_all`: that of the variances as well.
if (has("glmmTMB")) {
  prediction_se <- function(m, rows) {
    call <- list(formula(m), data = model.frame(m), REML = FALSE)
    free <- do.call(glmmTMB::glmmTMB, call)
    par <- free$fit$parfull
    held <- do.call(glmmTMB::glmmTMB, c(call, list(
      start = list(theta = unname(par[names(par) == "theta"]),
                   betad = unname(par[names(par) == "betad"])),
      map = list(theta = factor(rep(NA, sum(names(par) == "theta"))), betad = factor(NA)))))
    stopifnot(max(abs(fixef(m) - glmmTMB::fixef(held)$cond)) < 1e-3)
    inside <- predict(held, se.fit = TRUE)
    data.frame(observation = rows, fit = inside$fit[rows], se = inside$se.fit[rows],
               se_all = predict(free, se.fit = TRUE)$se.fit[rows])
  }
  record("prediction_se_sleepstudy", "sleepstudy_slopes_ml", "prediction_se",
         "prediction_se(m, c(1, 5, 10, 11, 90, 180))",
         note = "se: joint uncertainty of beta and b at the estimated variances")
  record("prediction_se_penicillin", "penicillin_ml", "prediction_se",
         "prediction_se(m, c(1, 6, 7, 70, 144))",
         note = "se: joint uncertainty of beta and b at the estimated variances")
  record("prediction_se_nested", "nested_unbalanced_ml", "prediction_se",
         "prediction_se(m, c(1, 20, 100, 200, 285))",
         note = "se: joint uncertainty of beta and b at the estimated variances")
}
