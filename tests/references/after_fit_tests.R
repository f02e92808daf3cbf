# lmerTest: contest, ls_means, ranova, drop1 and step. Sourced by after_fit.R.


# ---- contrasts -----------------------------------------------------------------------

as_rows <- function(L) apply(unname(rbind(L)), 1, as.list, simplify = FALSE)
written <- function(L) {
  rows <- apply(rbind(L), 1, function(row) sprintf("c(%s)", paste(row, collapse = ", ")))
  if (length(rows) == 1) rows else sprintf("rbind(%s)", paste(rows, collapse = ", "))
}
contest_of <- function(id, model, L, rhs = 0) {
  L <- rbind(L)
  given <- if (any(rhs != 0)) sprintf(", rhs = c(%s)", paste(rhs, collapse = ", ")) else ""
  record(paste0("contest_", id), model, "f_test",
         sprintf("contest(m, %s, joint = TRUE%s)", written(L), given),
         list(ddf = "satterthwaite", L = as_rows(L), rhs = as.list(rhs)))
}
contrasts_of <- function(id, model, L) {
  record(paste0("contest1d_", id), model, "t_contrasts",
         sprintf("contest(m, %s, joint = FALSE, confint = TRUE)", written(L)),
         list(ddf = "satterthwaite", L = as_rows(L)))
}
contest_of("sleepstudy_both", "sleepstudy_slopes", diag(2))
contest_of("sleepstudy_rhs", "sleepstudy_slopes", diag(2), c(250, 10))
contest_of("sleepstudy_at_9", "sleepstudy_slopes", c(1, 9))
contest_of("ratpup_interaction", "ratpup", diag(7)[6:7, ])
contest_of("ratpup_treatment", "ratpup",
           rbind(c(0, 1, 0, 0, 0, 0.5, 0), c(0, 0, 1, 0, 0, 0, 0.5)))
contest_of("oats_varieties", "oats_factorial", diag(12)[2:3, ])
contest_of("oats_deficient", "oats_factorial",
           rbind(diag(12)[2:3, ], diag(12)[2, ] - diag(12)[3, ]))
contest_of("nested_all", "nested_unbalanced", diag(4)[2:4, ])
contest_of("machines", "machines_maximal", diag(3)[2:3, ])
contest_of("ham", "ham_slopes", diag(8)[6:8, ])
contest_of("weights", "weights_slopes", diag(2))
contest_of("crossed", "crossed_uncorrelated", diag(4)[2:4, ])
contrasts_of("ratpup", "ratpup", rbind(c(0, 1, -1, 0, 0, 0, 0), c(0, 0, 0, 1, 0, 0.5, 0.5),
                                       c(1, 0, 0, 0, 12, 0, 0)))
contrasts_of("machines", "machines_nested", rbind(c(0, 1, -1), c(1, 1, 0)))
contrasts_of("crossed", "crossed_intercepts", rbind(c(1, 1, 0.5, 0.5), c(0, 1, 0, 1)))

# ---- least-squares means -------------------------------------------------------------

for (id in c("ham_factorial", "tvbo_products", "ergostool", "nested_interaction")) {
  for (ddf in c("Satterthwaite", if (id != "ham_factorial") "Kenward-Roger")) {
    record(sprintf("ls_means_%s_%s", if (ddf == "Satterthwaite") "st" else "kr", id), id,
           "ls_means", sprintf("ls_means(m, ddf = \"%s\")", ddf),
           list(ddf = tolower(ddf)), shape = as.data.frame)
  }
}
for (case in list(c("ham_factorial", "Product"), c("ham_factorial", "Information:Gender"),
                  c("tvbo_products", "TVset"), c("ergostool", "Type")))
  record(sprintf("ls_means_pairs_%s_%s", case[1], tolower(sub(":", "_", case[2]))),
         case[1], "ls_means_pairs",
         sprintf("ls_means(m, which = \"%s\", pairwise = TRUE)", case[2]),
         list(ddf = "satterthwaite", which = case[2]), shape = as.data.frame)

# ---- random terms --------------------------------------------------------------------

for (id in c("sleepstudy_slopes", "sleepstudy_slopes_ml", "sleepstudy_uncorrelated",
             "machines_nested", "machines_maximal", "penicillin", "pastes_nested",
             "crossed_maximal", "crossed_three_slopes", "nested_slopes", "assay",
             "carrots_step", "orthodont_sex_slopes", "singular_extra_factor"))
  record(paste0("ranova_", id), id, "ranova", "ranova(m)", shape = as.data.frame)
for (id in c("sleepstudy_slopes", "crossed_three_slopes", "nested_slopes"))
  record(paste0("ranova_whole_", id), id, "ranova", "ranova(m, reduce.terms = FALSE)",
         list(reduce_terms = FALSE), shape = as.data.frame)

# ---- fixed terms ---------------------------------------------------------------------

for (id in c("ratpup", "ham_factorial", "nested_unbalanced", "nested_interaction",
             "oats_covariate_sum", "carrots_slopes", "cake_covariate", "factorial_two_way",
             "weights_slopes"))
  record(paste0("drop1_", id), id, "drop1", "drop1(m)", list(ddf = "satterthwaite"),
         shape = as.data.frame)
for (id in c("ratpup", "nested_unbalanced"))
  record(paste0("drop1_kr_", id), id, "drop1", "drop1(m, ddf = \"Kenward-Roger\")",
         list(ddf = "kenward-roger"), shape = as.data.frame)
for (id in c("cake_additive_ml", "nested_unbalanced_ml", "stroup_ml"))
  record(paste0("drop1_chisq_", id), id, "drop1_lrt", "lme4:::drop1.merMod(m, test = \"Chisq\")",
         shape = as.data.frame)

# ---- step ----------------------------------------------------------------------------

# One table from the two that step() prints, and the formula it ends with.
elimination <- function(value) {
  parts <- list(random = value$random, fixed = value$fixed)
  rows <- lapply(names(parts), function(part) {
    table <- as.data.frame(parts[[part]], optional = TRUE)
    lapply(seq_len(nrow(table)), function(i) c(list(part = part, row = rownames(table)[i]),
      lapply(table[i, , drop = FALSE], function(x) text(unclass(x)))))
  })
  c(unlist(rows, recursive = FALSE),
    list(list(part = "final", row = deparse1(formula(lmerTest::get_model(value))))))
}
record_step <- function(id, call = "step(m)", args = list(), suffix = "") {
  value <- record(paste0("step_", id, suffix), id, "step", call, args,
                  shape = function(value) value$fixed)
  tables_made[[paste0("step_", id, suffix)]]$rows <<- elimination(value)
}
for (id in c("ham_step", "carrots_step", "tvbo_step", "ratpup", "crossed_maximal"))
  record_step(id)
record_step("carrots_step", "step(m, alpha.random = 0.5, alpha.fixed = 0.5)",
            list(alpha_random = 0.5, alpha_fixed = 0.5), "_half")
record_step("ham_step", "step(m, reduce.random = FALSE)", list(reduce_random = FALSE),
            "_fixed_only")
