# lme4: predictions, random effects, influence, components. Sourced by after_fit.R.

# ---- predictions ---------------------------------------------------------------------

# random: TRUE, FALSE or the grouping factors whose effects are in the prediction.
predict_of <- function(id, model, newdata = NULL, random = TRUE, re_form = "NULL",
                       new_levels = FALSE, rows = NULL) {
  call <- sprintf(if (is.null(newdata)) "head(predict(m%s, re.form = %s%s), 12)"
                  else "predict(m%s, re.form = %s%s)",
                  if (is.null(newdata)) "" else sprintf(", newdata = %s", deparse1(newdata)),
                  re_form, if (new_levels) ", allow.new.levels = TRUE" else "")
  record(paste0("predict_", id), model, "predict", call,
         list(newdata = if (!is.null(newdata)) lapply(as.list(newdata)[-1], function(x)
                as.list(eval(x))),
              random = random, new_levels = if (new_levels) "population" else "raise"))
}
for (id in c("sleepstudy_slopes", "penicillin", "pastes_nested", "nested_slopes",
             "weights_offset", "crossed_maximal")) {
  predict_of(paste0(id, "_rows"), id)
  predict_of(paste0(id, "_fixed"), id, random = FALSE, re_form = "NA")
}
predict_of("sleepstudy_new", "sleepstudy_slopes",
           quote(data.frame(Days = c(0, 5, 12), Subject = c("308", "309", "372"))))
predict_of("sleepstudy_new_level", "sleepstudy_slopes",
           quote(data.frame(Days = c(0, 5, 12), Subject = c("308", "other", "372"))),
           new_levels = TRUE)
predict_of("sleepstudy_poly", "sleepstudy_poly",
           quote(data.frame(Days = c(0.5, 11), Subject = c("308", "372"))))
predict_of("sleepstudy_log", "sleepstudy_log",
           quote(data.frame(Days = c(0.5, 11), Subject = c("308", "372"))))
predict_of("penicillin_plate", "penicillin", random = list("plate"),
           re_form = "~ (1 | plate)")
predict_of("pastes_batch", "pastes_nested", random = list("batch"),
           re_form = "~ (1 | batch)")
predict_of("pastes_new", "pastes_nested",
           quote(data.frame(batch = c("A", "A", "Z"), cask = c("a", "q", "a"))),
           new_levels = TRUE)
predict_of("ratpup_new", "ratpup",
           quote(data.frame(Treatment = c("Control", "High"), sex = c("Female", "Male"),
                            Lsize = c(10, 14), Litter = c("1", "27"))))
predict_of("oats_poly_new", "oats_poly",
           quote(data.frame(nitro = c(0.1, 0.5), Variety = c("Victory", "Marvellous"),
                            Block = c("I", "VI"))))
predict_of("offset_new", "offset_slopes",
           quote(data.frame(x = c(1, 2), z = c(0, 10), g = c("1", "3"))))
predict_of("machines_new", "machines_vector",
           quote(data.frame(Machine = c("A", "B", "C"), Worker = c("1", "2", "9"))),
           new_levels = TRUE)

# ---- random effects ------------------------------------------------------------------

# Conditional covariance matrices: one row per level and entry of the lower triangle.
condvar <- function(value, first = 4) {
  rows <- lapply(names(value), function(group) {
    V <- attr(value[[group]], "postVar")
    names <- colnames(value[[group]])
    do.call(rbind, lapply(seq_len(min(first, dim(V)[3])), function(k) {
      at <- which(lower.tri(V[, , k], diag = TRUE), arr.ind = TRUE)
      if (length(names) == 1) at <- cbind(1, 1)
      data.frame(grp = group, level = rownames(value[[group]])[k],
                 var1 = names[at[, 1]], var2 = names[at[, 2]], cov = V[, , k][at])
    }))
  })
  do.call(rbind, rows)
}
for (id in c("sleepstudy_slopes", "sleepstudy_slopes_ml", "penicillin_ml", "crossed_maximal",
             "carrots_slopes", "weights_slopes"))
  record(paste0("condvar_", id), id, "condvar", "condvar(ranef(m, condVar = TRUE))")
coefficients_of <- function(value, first = 4) do.call(rbind, lapply(names(value), function(g) {
  table <- head(value[[g]], first)
  data.frame(grp = g, level = rep(rownames(table), ncol(table)),
             name = rep(colnames(table), each = nrow(table)), value = unlist(table),
             row.names = NULL)
}))
for (id in c("sleepstudy_slopes", "penicillin", "machines_vector", "carrots_slopes",
             "nested_slopes", "orthodont_sex_slopes"))
  record(paste0("coef_", id), id, "coef", "coefficients_of(coef(m))")

# ---- observations --------------------------------------------------------------------

observations <- function(m) {
  data.frame(fitted = fitted(m), hat = hatvalues(m), cook = cooks.distance(m),
             pearson = residuals(m, "pearson"),
             scaled = residuals(m, "pearson", scaled = TRUE), student = rstudent(m))
}
for (id in c("sleepstudy_slopes", "ratpup", "penicillin", "nested_unbalanced",
             "weights_slopes", "weights_offset"))
  record(paste0("observations_", id), id, "observations", "head(observations(m), 15)")
record("observations_summed", "sleepstudy_slopes", "observation_sums",
       "colSums(observations(m))")

# ---- groups left out -----------------------------------------------------------------

# influence.merMod refits with lme4's default optimizer; here the refits are tight.
# Cook's distance of a group in lme4: (d' V^-1 d) (k - p) / (k p), k groups.
left_out <- function(m, group) {
  data <- model.frame(m)
  beta <- fixef(m)
  V <- as.matrix(vcov(m))
  k <- nlevels(data[[group]])
  rows <- lapply(levels(data[[group]]), function(level) {
    call <- getCall(m)
    call$data <- droplevels(eval(call$data)[eval(call$data)[[group]] != level, ])
    rest <- eval(call, globalenv())
    d <- fixef(rest) - beta
    data.frame(level = level, t(d), quadratic = drop(d %*% solve(V, d)),
               sigma = sigma(rest), check.names = FALSE)
  })
  out <- do.call(rbind, rows)
  out$cook_lme4 <- out$quadratic * (k - length(beta)) / (k * length(beta))
  out
}
for (case in list(c("sleepstudy_slopes", "Subject"), c("ratpup_additive", "Litter"),
                  c("orthodont_sex_slopes", "Subject")))
  record(paste0("left_out_", case[1]), case[1], "left_out",
         sprintf("left_out(m, \"%s\")", case[2]), list(group = case[2]))
record("influence_sleepstudy_slopes", "sleepstudy_slopes", "influence",
       "{ out <- influence(m, \"Subject\")
          cbind(dfbeta(out), cook = cooks.distance(out)) }", list(group = "Subject"),
       note = "refits by lme4's default optimizer, accurate to about 1e-4")

# ---- components ----------------------------------------------------------------------

# Principal components of the relative covariance of each grouping factor.
for (id in c("sleepstudy_slopes", "machines_maximal", "crossed_maximal", "singular_maximal",
             "carrots_crossed_slopes"))
  record(paste0("pca_", id), id, "pca",
         "do.call(rbind, lapply(names(rePCA(m)), function(g) {
            sdev <- rePCA(m)[[g]]$sdev
            data.frame(grp = g, component = seq_along(sdev), sdev = sdev,
                       proportion = sdev^2 / sum(sdev^2)) }))")
for (id in c("machines_maximal", "crossed_maximal", "carrots_crossed_slopes"))
  record(paste0("varcorr_", id), id, "varcorr", "as.data.frame(VarCorr(m))")
