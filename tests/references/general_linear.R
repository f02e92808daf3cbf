# F tests of K'beta whose rows are dependent, and standard errors by Kenward and Roger:
#   Rscript general_linear.R ../../mixform/datasets > general_linear.txt
# R's lm with a rank-deficient design, and nlme::gls with V known up to sigma^2.
folder <- commandArgs(trailingOnly = TRUE)[1]
suppressMessages({
  library(lme4)
  library(lmerTest)
  library(pbkrtest)
  library(nlme)
})
show <- function(name, values) {
  cat(name, sprintf("%.10g", as.numeric(values)), "\n")
}

oats <- read.csv(file.path(folder, "Oats.csv"))
oats <- oats[-c(1, 6, 20, 37), ]  # unbalanced: four plots lost
oats$nitro <- as.numeric(oats$nitro)
tight <- lmerControl(
  optimizer = "bobyqa",
  optCtrl = list(rhobeg = 2e-3, rhoend = 1e-10, maxfun = 1e5)
)
m <- lmer(yield ~ nitro * Variety + (1 | Block/Variety), oats, control = tight)
L <- rbind(
  c(0, 1, 0, 0, 0, 0), c(0, 0, 0, 0, 1, 0), c(0, 1, 0, 0, 1, 0), c(0, 2, 0, 0, 2, 0)
)
for (ddf in c("Satterthwaite", "Kenward-Roger")) {
  found <- contestMD(m, L, ddf = ddf)
  show(paste("contestMD", ddf), unlist(found[c("NumDF", "DenDF", "F value", "Pr(>F)")]))
}
show("vcov se", sqrt(diag(as.matrix(vcov(m)))))
show("vcovAdj se", sqrt(diag(as.matrix(vcovAdj(m)))))

pigs <- data.frame(y = c(53, 46, 58, 61, 66, 57), c = rep(1:0, each = 3))
pigs$t <- 1 - pigs$c
fit <- lm(y ~ c + t, pigs)
show("lm coef", coef(fit))
s <- summary(fit)
show("lm sigma r2 adj", c(s$sigma, s$r.squared, s$adj.r.squared))
show("lm fstatistic", s$fstatistic)
show("lm AIC", AIC(fit))

x <- c(1, 2, 4, 5, 7, 8, 11)
z <- c(2.1, 3.9, 7.2, 11.8, 13.1, 17.5, 21)
known <- gls(z ~ x, correlation = corAR1(0.6, form = ~1, fixed = TRUE), method = "ML")
show("gls coef", coef(known))
show("gls sigma logLik", c(known$sigma, logLik(known)))
known <- gls(z ~ x, correlation = corAR1(0.6, form = ~1, fixed = TRUE))
show("gls REML sigma se", c(known$sigma, sqrt(diag(vcov(known)))))
cat(R.version.string, "\n")
for (p in c("lme4", "lmerTest", "pbkrtest", "nlme")) {
  cat(p, as.character(packageVersion(p)), "\n")
}
