# emmeans: marginal means, joint tests and trends. Sourced by after_fit.R.


methods <- c(satterthwaite = "satterthwaite", "kenward-roger" = "kenward-roger",
             asymptotic = "asymptotic")
quoted <- function(x) paste0("\"", x, "\"")
given <- function(name, value) {
  if (is.null(value)) "" else sprintf(", %s = %s", name, deparse1(value))
}
lists <- function(args) {
  # Vectors become JSON arrays, also of length one where Python expects a list.
  for (name in c("specs", "by")) if (!is.null(args[[name]]))
    args[[name]] <- as.list(args[[name]])
  if (!is.null(args$at)) args$at <- lapply(args$at, as.list)
  args
}
emmeans_call <- function(specs, by = NULL, at = NULL, weights = NULL,
                         ddf = "satterthwaite") {
  sprintf("emmeans(m, %s%s%s%s, lmer.df = \"%s\")", deparse1(specs), given("by", by),
          given("at", at), given("weights", weights), ddf)
}

means_of <- function(id, model, specs, by = NULL, at = NULL, weights = NULL,
                     ddf = "satterthwaite", type = NULL, adjust = NULL, level = NULL,
                     note = NULL) {
  call <- sprintf("summary(%s, infer = c(TRUE, TRUE)%s%s%s)",
                  emmeans_call(specs, by, at, weights, ddf), given("type", type),
                  given("adjust", adjust), given("level", level))
  record(paste0("emmeans_", id), model, "emmeans", call,
         lists(list(specs = specs, by = by, at = at, weights = weights, ddf = ddf,
                    type = type, adjust = adjust, level = level)), note = note)
}

# ---- one factor, three methods -------------------------------------------------------

for (case in list(c("pastes", "pastes_cask", "cask"),
                  c("machines", "machines_nested", "Machine"),
                  c("ergostool", "ergostool", "Type"), c("ratpup", "ratpup", "Treatment"),
                  c("nested", "nested_unbalanced", "treat"), c("oats", "oats_factorial", "nitro"),
                  c("tvbo", "tvbo_products", "TVset"), c("ham", "ham_factorial", "Product"),
                  c("crossed", "crossed_intercepts", "cond")))
  for (ddf in methods)
    means_of(paste(case[1], c(s = "st", k = "kr", a = "as")[substr(ddf, 1, 1)], sep = "_"),
             case[2], case[3], ddf = ddf)
means_of("ratpup_ml", "ratpup_ml", "Treatment")
means_of("weights", "weights_slopes", "x", at = list(x = c(0, 2.5, 5)))
means_of("machines_maximal", "machines_maximal", "Machine", ddf = "kenward-roger")
means_of("ergostool_90", "ergostool", "Type", level = 0.9)
means_of("ergostool_bonferroni", "ergostool", "Type", adjust = "bonferroni")
means_of("ergostool_sidak", "ergostool", "Type", adjust = "sidak")

# ---- two factors, by, weights --------------------------------------------------------

means_of("ratpup_cells", "ratpup", c("Treatment", "sex"))
means_of("ratpup_by_sex", "ratpup", "Treatment", by = "sex", ddf = "kenward-roger")
means_of("oats_cells", "oats_factorial", c("Variety", "nitro"), ddf = "kenward-roger")
means_of("oats_by_variety", "oats_factorial", "nitro", by = "Variety")
means_of("stroup_by_b", "stroup", "A", by = "B")
means_of("ham_two_by_gender", "ham_factorial", c("Product", "Information"), by = "Gender")
means_of("tvbo_cells", "tvbo_products", c("TVset", "Picture"))
for (weights in c("equal", "proportional", "cells", "outer")) {
  means_of(paste0("ratpup_weights_", weights), "ratpup", "Treatment", weights = weights)
  means_of(paste0("two_way_weights_", weights), "factorial_two_way", "a", weights = weights)
  means_of(paste0("ham_weights_", weights), "ham_factorial", "Information", weights = weights)
  means_of(paste0("two_way_by_b_weights_", weights), "factorial_two_way", "a", by = "b",
           weights = weights)
}

# ---- covariates ----------------------------------------------------------------------

means_of("cake_mean", "cake_covariate", "recipe")
means_of("cake_at", "cake_covariate", c("recipe", "temp"),
         at = list(temp = c(175, 200, 225)))
means_of("orthodont_mean", "orthodont_sex", "Sex", ddf = "kenward-roger")
means_of("orthodont_by_age", "orthodont_sex", "Sex", by = "age",
         at = list(age = c(8, 11, 14)))
means_of("orthodont_slopes_at", "orthodont_sex_slopes", "Sex", at = list(age = 8))
means_of("ratpup_lsize", "ratpup", "Treatment", at = list(Lsize = 10))
means_of("square", "sleepstudy_square", "Days", at = list(Days = c(0, 3, 9)))
means_of("square_mean", "sleepstudy_square", "Days")
means_of("poly", "sleepstudy_poly", "Days", at = list(Days = c(0, 3, 9)))
means_of("oats_poly", "oats_poly", c("Variety", "nitro"), at = list(nitro = c(0, 0.3)))
means_of("oats_poly_mean", "oats_poly_additive", "Variety")
means_of("pixel_sides", "pixel_sides", "Side", at = list(day = c(2, 10)), by = "day")
means_of("ham_age", "ham_age", "Product", ddf = "kenward-roger")
means_of("offset", "offset_slopes", "x", at = list(x = c(1, 2)))
means_of("nested_missing", "nested_missing", "treat")

# ---- transformed responses -----------------------------------------------------------

for (type in c("link", "response")) {
  means_of(paste0("ratpup_log_", type), "ratpup_log", "Treatment", by = "sex", type = type)
  means_of(paste0("pastes_log_", type), "pastes_log_cask", "cask", type = type,
           ddf = "kenward-roger")
  means_of(paste0("oats_sqrt_", type), "oats_sqrt", "Variety", type = type)
  means_of(paste0("oats_sqrt_cells_", type), "oats_sqrt", c("Variety", "nitro"), type = type)
  means_of(paste0("sleepstudy_log_", type), "sleepstudy_log", "Days",
           at = list(Days = c(0, 9)), type = type)
}

# ---- empty cells ---------------------------------------------------------------------

means_of("empty_a", "factorial_empty_cell", "a")
means_of("empty_cells", "factorial_empty_cell", c("a", "b", "c"))
means_of("empty_by_b", "factorial_empty_cell", "a", by = "b")
means_of("redundant", "factorial_redundant", "b", note = "dose is a function of a")
means_of("empty_cell_weights", "factorial_empty_cell", "a", weights = "cells")

# ---- joint tests ---------------------------------------------------------------------

joint_of <- function(id, model, by = NULL, ddf = "satterthwaite", at = NULL) {
  record(paste0("joint_tests_", id), model, "joint_tests",
         sprintf("joint_tests(m%s%s, lmer.df = \"%s\")", given("by", by), given("at", at),
                 ddf),
         lists(list(by = by, ddf = ddf, at = at)))
}
for (ddf in c("satterthwaite", "kenward-roger", "asymptotic")) {
  short <- c(s = "st", k = "kr", a = "as")[substr(ddf, 1, 1)]
  joint_of(paste0("ratpup_", short), "ratpup", ddf = ddf)
  joint_of(paste0("oats_", short), "oats_factorial", ddf = ddf)
}
joint_of("ham", "ham_factorial")
joint_of("nested", "nested_interaction")
joint_of("two_way", "factorial_two_way")
joint_of("empty", "factorial_empty_cell")
joint_of("cake", "cake_covariate")
joint_of("tvbo", "tvbo_products")
joint_of("ratpup_by_sex", "ratpup", by = "sex")
joint_of("oats_by_variety", "oats_factorial", by = "Variety", ddf = "kenward-roger")
joint_of("ham_by_gender", "ham_factorial", by = "Gender")
joint_of("stroup_by_b", "stroup", by = "B")

# emmeans takes the smallest df of the rows for a test of several. Its hypotheses with
# the denominator df of lmerTest and pbkrtest:
joint_L <- function(m, specs, by = NULL) {
  means <- emmeans(m, specs, by = by)
  L <- contrast(means, interaction = "consec", by = by)@linfct
  if (is.null(by)) return(list(L))
  group <- as.data.frame(contrast(means, interaction = "consec", by = by))[[by]]
  lapply(split(seq_len(nrow(L)), group), function(i) L[i, , drop = FALSE])
}
joint_F <- function(m, specs, by = NULL, kr = FALSE) {
  rows <- lapply(joint_L(m, specs, by), function(L) {
    if (!kr) return(contest(m, L)[c("NumDF", "DenDF", "F value", "Pr(>F)")])
    found <- pbkrtest::KRmodcomp(m, L)$test[1, ]
    setNames(found[c("ndf", "ddf", "stat", "p.value")],
             c("NumDF", "DenDF", "F value", "Pr(>F)"))
  })
  out <- do.call(rbind, rows)
  if (!is.null(by)) out[[by]] <- rownames(out)
  rownames(out) <- NULL
  out
}
for (case in list(list("ratpup", "ratpup", "Treatment"),
                  list("ratpup_cells", "ratpup", c("Treatment", "sex")),
                  list("ratpup_by_sex", "ratpup", "Treatment", "sex"),
                  list("nested", "nested_interaction", "treat"),
                  list("two_way", "factorial_two_way", "a"),
                  list("two_way_cells", "factorial_two_way", c("a", "b")),
                  list("ham", "ham_factorial", c("Product", "Information")),
                  list("ham_by_gender", "ham_factorial", "Product", "Gender"),
                  list("tvbo", "tvbo_products", c("TVset", "Picture"))))
  for (kr in c(FALSE, TRUE)) {
    if (kr && !case[[2]] %in% c("ratpup", "nested_interaction")) next
    by <- if (length(case) > 3) case[[4]]
    record(sprintf("joint_df_%s%s", case[[1]], if (kr) "_kr" else ""), case[[2]],
           "joint_df", sprintf("joint_F(m, %s%s%s)", deparse1(case[[3]]), given("by", by),
                               if (kr) ", kr = TRUE" else ""),
           list(term = paste(case[[3]], collapse = ":"),
                by = if (!is.null(by)) list(by),
                ddf = if (kr) "kenward-roger" else "satterthwaite"))
  }

# ---- trends --------------------------------------------------------------------------

slopes_of <- function(id, model, var, specs = "1", by = NULL, at = NULL,
                      ddf = "satterthwaite", pairs = FALSE, adjust = NULL) {
  call <- sprintf(
    "emtrends(m, ~ %s%s, var = \"%s\"%s, lmer.df = \"%s\", delta.var = 1e-5)",
    paste(specs, collapse = " * "), given("by", by), var, given("at", at), ddf)
  call <- if (pairs) sprintf("summary(pairs(%s)%s, infer = c(TRUE, TRUE))", call,
                             given("adjust", adjust))
          else sprintf("summary(%s, infer = c(TRUE, TRUE))", call)
  record(paste0(if (pairs) "slope_pairs_" else "slopes_", id), model,
         if (pairs) "slope_pairs" else "slopes", call,
         lists(list(var = var, specs = specs, by = by, at = at, ddf = ddf,
                    adjust = adjust)))
}
for (pairs in c(FALSE, TRUE)) {
  slopes_of("cake", "cake_covariate", "temp", "recipe", pairs = pairs)
  slopes_of("orthodont", "orthodont_sex", "age", "Sex", pairs = pairs, ddf = "kenward-roger")
  slopes_of("oats", "oats_covariate_sum", "nitro", "Variety", pairs = pairs)
  slopes_of("ham", "ham_age", "Age", "Product", pairs = pairs)
  slopes_of("nested", "nested_interaction", "x", "treat", pairs = pairs)
}
slopes_of("sleepstudy", "sleepstudy_slopes", "Days")
slopes_of("square", "sleepstudy_square", "Days", "Days", at = list(Days = c(0, 3, 9)))
slopes_of("poly", "sleepstudy_poly", "Days", "Days", at = list(Days = c(0, 3, 9)))
slopes_of("pixel", "pixel_sides", "day", "Side", by = "day", at = list(day = c(2, 10)))
slopes_of("oats_poly", "oats_poly", "nitro", "Variety", at = list(nitro = 0.3))
slopes_of("orthodont_slopes", "orthodont_sex_slopes", "age", "Sex")
slopes_of("weights", "weights_slopes", "x")
slopes_of("sleepstudy_log", "sleepstudy_log", "Days")
