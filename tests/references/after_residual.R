# What nlme does after the fit with residual structures: residuals, predictions,
# approximate intervals, likelihood-ratio tables. Rscript after_residual.R DATASETS
suppressMessages(library(nlme))
folder <- commandArgs(TRUE)[1]
tight <- glsControl(maxIter = 500, msMaxIter = 2000, tolerance = 1e-12, msTol = 1e-14)
tight_lme <- lmeControl(maxIter = 500, msMaxIter = 2000, tolerance = 1e-12,
                        msTol = 1e-14, niterEM = 100)
options(digits = 12, width = 100)
d <- read.csv(file.path(folder, "Orthodont.csv"))
d$visit <- (d$age - 6) / 2
d$Sex <- factor(d$Sex)
show <- function(name, value) {
  cat("#", name, "\n")
  cat(formatC(as.numeric(value), digits = 12, format = "g", flag = "-"), fill = 90)
}
after <- function(name, fitted) {
  show(paste(name, "logLik"), logLik(fitted))
  show(paste(name, "fitted"), fitted(fitted))
  show(paste(name, "pearson"), residuals(fitted, type = "pearson"))
  show(paste(name, "normalized"), residuals(fitted, type = "normalized"))
}
cat("# ", R.version.string, ", nlme ", as.character(packageVersion("nlme")), "\n", sep = "")

us <- gls(distance ~ age * Sex, d, correlation = corSymm(form = ~ visit | Subject),
          weights = varIdent(form = ~ 1 | age), control = tight)
after("us", us)
ar1 <- gls(distance ~ age * Sex, d, correlation = corAR1(form = ~ visit | Subject),
           control = tight)
after("ar1", ar1)
show("ar1 rho", intervals(ar1)$corStruct)
show("ar1 sigma", intervals(ar1)$sigma)
car1 <- gls(distance ~ age * Sex, d, correlation = corCAR1(form = ~ age | Subject),
            weights = varIdent(form = ~ 1 | Sex), control = tight)
after("car1", car1)
expo <- gls(distance ~ age * Sex, d, correlation = corExp(form = ~ age | Subject),
            control = tight)
after("exp", expo)
cs <- gls(distance ~ age * Sex, d, correlation = corCompSymm(form = ~ 1 | Subject),
          control = tight)
after("cs", cs)
iid <- gls(distance ~ age * Sex, d, control = tight)
mixed <- lme(distance ~ age * Sex, d, random = ~ 1 | Subject,
             correlation = corAR1(form = ~ visit | Subject),
             weights = varIdent(form = ~ 1 | Sex), control = tight_lme)
after("mixed", mixed)
new <- data.frame(age = c(9, 15), Sex = factor(c("Female", "Male"), levels(d$Sex)),
                  Subject = c("F03", "M07"), visit = c(2, 5))
show("ar1 predict", predict(ar1, new))
show("mixed predict", predict(mixed, new))
table <- anova(iid, ar1, us)
show("anova df", table$df)
show("anova AIC", table$AIC)
show("anova ratio", table$L.Ratio[-1])
show("anova p", table$"p-value"[-1])
