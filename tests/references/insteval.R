# Fit two models to lme4's InstEval with lmerTest; write the data and the results.
#
#   Rscript insteval.R        (in this folder; about a minute)

suppressPackageStartupMessages(library(lmerTest))
data(InstEval, package = "lme4")
connection <- gzfile("data/InstEval.csv.gz", "w")
write.csv(InstEval[c("s", "d", "service", "dept", "y")], connection,
          row.names = FALSE, quote = FALSE)
close(connection)

number <- function(x) sprintf("%.12g", x)
describe <- function(id, formula) {
  control <- lmerControl(optimizer = "bobyqa", calc.derivs = FALSE,
                         optCtrl = list(rhoend = 1e-9, maxfun = 1e5))
  m <- lmer(formula, InstEval, control = control)
  table <- coef(summary(m))
  list(
    id = id, formula = deparse1(formula), criterion = number(REMLcrit(m)),
    theta = lapply(as.list(getME(m, "theta")), number), sigma = number(sigma(m)),
    fixed = lapply(seq_len(nrow(table)), function(i) list(
      name = rownames(table)[i], estimate = number(table[i, 1]),
      se = number(table[i, 2]), df = number(table[i, 3]))),
    anova = lapply(c(I = 1, II = 2, III = 3), function(type) {
      a <- anova(m, type = type)
      lapply(seq_len(nrow(a)), function(i) list(
        term = rownames(a)[i], NumDF = number(a[i, 3]), DenDF = number(a[i, 4]),
        F = number(a[i, 5])))
    })
  )
}
results <- list(
  session = list(R = R.version.string, lme4 = as.character(packageVersion("lme4")),
                 lmerTest = as.character(packageVersion("lmerTest"))),
  models = list(
    describe("insteval_crossed", y ~ service + (1 | s) + (1 | d) + (1 | dept)),
    describe("insteval_factorial", y ~ service * dept + (1 | s) + (1 | d))
  )
)
writeLines(jsonlite::toJSON(results, auto_unbox = TRUE, pretty = TRUE), "insteval.json")
