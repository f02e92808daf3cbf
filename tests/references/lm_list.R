# Regressions by subject: nlme::lmList and lme4::lmList, what they print to 12 digits.
# Rscript lm_list.R ../../mixform/datasets > lm_list.txt
suppressMessages({library(nlme); library(lme4)})
folder <- commandArgs(TRUE)[1]
options(digits = 12, width = 100)
show <- function(name, value) {
  cat("#", name, "\n")
  cat(formatC(as.numeric(value), digits = 12, format = "g", flag = "-"), fill = 90)
}
# Matrices by row: a line of numbers for each subject, subjects in alphabetical order.
by_subject <- function(name, table) show(name, t(table[order(rownames(table)), , drop = FALSE]))
report <- function(name, fit) {
  by_subject(paste(name, "coefficients"), as.matrix(coef(fit)))
  for (pool in c(TRUE, FALSE)) {
    s <- summary(fit, pool = pool)
    how <- paste(name, if (pool) "pooled" else "own")
    for (what in c("Std. Error", "t value", "Pr(>|t|)"))
      by_subject(paste(how, what), as.matrix(coef(s)[, what, ]))
    if (pool) show(paste(how, "sigma and df"), c(s$RSE, s$df.residual))
  }
  own <- summary(fit, pool = FALSE)
  keep <- order(names(fit))
  show(paste(name, "own sigma"), sapply(fit, function(one) summary(one)$sigma)[keep])
  show(paste(name, "R squared"), sapply(fit, function(one) summary(one)$r.squared)[keep])
  for (level in c(0.95, 0.9)) {
    limits <- nlme::intervals(fit, level = level)
    for (side in c("lower", "upper"))
      by_subject(paste(name, "pooled", side, level), as.matrix(limits[, side, ]))
  }
}
cat("# ", R.version.string, ", nlme ", as.character(packageVersion("nlme")),
    ", lme4 ", as.character(packageVersion("lme4")), "\n", sep = "")

orthodont <- read.csv(file.path(folder, "Orthodont.csv"))
sleepstudy <- read.csv(file.path(folder, "sleepstudy.csv"))
sleepstudy$Subject <- as.character(sleepstudy$Subject)
# Subjects of different sizes: every fifth row is left out.
sleep_less <- sleepstudy[seq_len(nrow(sleepstudy)) %% 5 != 0, ]
sleepstudy$w <- 1 + sleepstudy$Days %% 3

report("Orthodont", nlme::lmList(distance ~ age | Subject, orthodont))
report("sleepstudy", nlme::lmList(Reaction ~ Days | Subject, sleepstudy))
report("unbalanced", nlme::lmList(Reaction ~ Days + I(Days^2) | Subject, sleep_less))

# lme4's version has weights, and says the same of the rest.
other <- lme4::lmList(Reaction ~ Days | Subject, sleepstudy)
by_subject("lme4 coefficients", as.matrix(coef(other)))
by_subject("lme4 pooled Std. Error", as.matrix(coef(summary(other))[, "Std. Error", ]))
# Unless pool is given again, confint takes each subject's own variance.
by_subject("lme4 pooled lower 0.95", as.matrix(confint(other, pool = TRUE)[, 1, ]))
by_subject("lme4 own lower 0.95", as.matrix(confint(other)[, 1, ]))
weighted <- lapply(split(sleepstudy, sleepstudy$Subject),
                   function(d) lm(Reaction ~ Days, d, weights = w))
by_subject("weighted coefficients", t(sapply(weighted, coef)))
show("weighted own sigma", sapply(weighted, function(one) summary(one)$sigma))
show("weighted R squared", sapply(weighted, function(one) summary(one)$r.squared))
cat("\n")
print(summary(nlme::lmList(distance ~ age | Subject, orthodont)))
