# Cluster-robust covariances of generalized least squares: nlme and clubSandwich.
# Rscript robust_gls.R > robust_gls.txt
suppressMessages({library(nlme); library(clubSandwich)})
options(digits = 12, width = 120)
cat(R.version.string, "nlme", as.character(packageVersion("nlme")),
    "clubSandwich", as.character(packageVersion("clubSandwich")), "\n")
d <- as.data.frame(Orthodont)
d$Subject <- factor(as.character(d$Subject))
d <- d[-c(2, 11, 12, 29, 54, 90), ]  # some visits missing
d$visit <- (d$age - 6) / 2
tight <- glsControl(tolerance = 1e-10, msTol = 1e-12, maxIter = 500, msMaxIter = 500)
models <- list(
  ar1 = gls(distance ~ age * Sex, d, corAR1(form = ~ visit | Subject), control = tight),
  csh = gls(distance ~ age * Sex, d, corCompSymm(form = ~ 1 | Subject),
            weights = varIdent(form = ~ 1 | age), control = tight),
  us = gls(distance ~ age * Sex, d, corSymm(form = ~ visit | Subject),
           weights = varIdent(form = ~ 1 | age), control = tight))
for (name in names(models)) for (type in c("CR0", "CR2", "CR3")) {
  m <- models[[name]]
  V <- vcovCR(m, type = type)
  cat("##", name, type, "\n")
  print(as.data.frame(coef_test(m, vcov = V, test = "Satterthwaite"))[
    , c("beta", "SE", "df_Satt")], digits = 12)
}
