# Kenward-Roger: t tests, adjusted covariance, F tests of types I to III and of L.
# Sourced by after_fit.R.


kenward_roger <- function(id, types = 1:3) {
  record(paste0("kr_t_", id), id, "t_tests",
         "coef(summary(m, ddf = \"Kenward-Roger\"))", list(ddf = "kenward-roger"))
  if (length(fixef(fit_of(id))) <= 8)
    record(paste0("kr_vcov_", id), id, "vcov", "as.matrix(pbkrtest::vcovAdj(m))",
           list(ddf = "kenward-roger"))
  for (type in types)
    record(sprintf("kr_anova_%d_%s", type, id), id, "anova",
           sprintf("anova(m, type = %d, ddf = \"Kenward-Roger\")", type),
           list(ddf = "kenward-roger", type = type))
}

# The F test of several rows, one after the other as rbind would write them.
kr_test <- function(id, model, L) {
  written <- paste(vapply(seq_len(nrow(L)), function(i)
    sprintf("c(%s)", paste(L[i, ], collapse = ", ")), ""), collapse = ", ")
  record(paste0("kr_test_", id), model, "f_test",
         sprintf("pbkrtest::KRmodcomp(m, rbind(%s))", written),
         list(ddf = "kenward-roger", L = apply(L, 1, as.list, simplify = FALSE)),
         shape = function(value) value$test)
}
unit_rows <- function(columns, p) diag(p)[columns, , drop = FALSE]

balanced <- c("sleepstudy_intercept", "sleepstudy_slopes", "sleepstudy_uncorrelated",
              "oats_factorial", "stroup", "machines_maximal", "tvbo_products", "assay")
for (id in c("sleepstudy_intercept", "sleepstudy_slopes", "sleepstudy_uncorrelated",
             "orthodont_sex_slopes", "oats_factorial", "stroup", "ratpup",
             "nested_unbalanced", "nested_slopes", "nested_missing", "machines_maximal",
             "factorial_two_way", "crossed_intercepts", "crossed_uncorrelated",
             "ham_slopes", "tvbo_products", "pixel", "petrol", "assay"))
  kenward_roger(id, if (id %in% balanced) 3 else 1:3)
for (id in c("dyestuff2", "singular_slopes", "singular_extra_factor"))
  kenward_roger(id, if (id == "dyestuff2") integer() else 3)
kenward_roger("penicillin", integer())
kenward_roger("oats_log", 3)
kenward_roger("carrots_small", 3)

kr_test("sleepstudy_both", "sleepstudy_slopes", diag(2))
kr_test("orthodont_slopes", "orthodont_sex_slopes", unit_rows(c(2, 4), 4))
kr_test("ratpup_treatment", "ratpup",
        rbind(c(0, 1, 0, 0, 0, 0.5, 0), c(0, 0, 1, 0, 0, 0, 0.5)))
kr_test("ratpup_interaction", "ratpup", unit_rows(6:7, 7))
kr_test("nested_treat", "nested_unbalanced", unit_rows(2:3, 4))
kr_test("machines", "machines_maximal", unit_rows(2:3, 3))
kr_test("oats_interaction", "oats_factorial", unit_rows(7:12, 12))
kr_test("crossed_all", "crossed_intercepts", unit_rows(2:4, 4))
kr_test("ham_products", "ham_slopes", unit_rows(2:4, 8))
kr_test("singular", "singular_slopes", diag(2))

# With prior weights pbkrtest takes the residual covariance for sigma^2 I, not
# sigma^2 / w. The same model in rows times sqrt(w) has no weights, and gives the right
# answer.
whitened <- paste(
  "{ rows <- transform(sim_weights, s = sqrt(w), sx = sqrt(w) * x, sy = sqrt(w) * y)",
  "  whitened <- lmerTest::lmer(%s, rows, control = control)",
  "  %s }", sep = "\n")
said_of_weights <- "rows times sqrt(w), because pbkrtest ignores prior weights"
for (case in list(list(id = "weights_intercept", "sy ~ 0 + s + sx + (0 + s | g)"),
                  list(id = "weights_slopes", "sy ~ 0 + s + sx + (0 + s + sx | g)"))) {
  record(paste0("kr_t_", case$id), case$id, "t_tests",
         sprintf(whitened, case[[2]],
                 "coef(summary(whitened, ddf = \"Kenward-Roger\"))"),
         list(ddf = "kenward-roger"), note = said_of_weights)
  record(paste0("kr_vcov_", case$id), case$id, "vcov",
         sprintf(whitened, case[[2]], "as.matrix(pbkrtest::vcovAdj(whitened))"),
         list(ddf = "kenward-roger"), note = said_of_weights)
  record(paste0("kr_test_", case$id), case$id, "f_test",
         sprintf(whitened, case[[2]], "pbkrtest::KRmodcomp(whitened, diag(2))"),
         list(ddf = "kenward-roger", L = list(list(1, 0), list(0, 1))),
         shape = function(value) value$test, note = said_of_weights)
}
record("kr_t_weights_as_pbkrtest", "weights_intercept", "departure",
       "coef(summary(m, ddf = \"Kenward-Roger\"))", list(ddf = "kenward-roger"),
       note = "pbkrtest ignores prior weights in V: not a reference")
