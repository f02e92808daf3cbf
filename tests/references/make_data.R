# Write the data sets that only the reference models use to data/*.csv beside this file.
#
#   Rscript make_data.R [output directory]
#
# Sources: lmerTest (carrots, ham, TVbo), nlme (Assay, BodyWeight, Pixel, RatPupWeight),
# MASS (nlschools, petrol), and simulations (sim_*) with seeds. README.md cites them.

out <- commandArgs(TRUE)
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
out <- if (length(out)) out[1] else file.path(here, "data")
dir.create(out, showWarnings = FALSE)

put <- function(data, name) {
  data <- as.data.frame(data)
  for (v in names(data)) {
    if (is.numeric(data[[v]])) {
      text <- formatC(data[[v]], digits = 15, format = "g", width = 1)
      data[[v]] <- ifelse(is.na(data[[v]]), NA, text)
    }
  }
  path <- file(file.path(out, paste0(name, ".csv")), "wb")
  write.csv(data, path, row.names = FALSE, quote = FALSE, eol = "\n", na = "")
  close(path)
}
get_data <- function(name, package) {
  data(list = name, package = package, envir = environment())
  get(name, envir = environment())
}
seed <- function(value) {
  set.seed(value, kind = "Mersenne-Twister", normal.kind = "Inversion",
           sample.kind = "Rejection")
}

carrots <- get_data("carrots", "lmerTest")
put(carrots[c("Consumer", "Frequency", "Homesize", "Income", "Preference", "sens1",
              "sens2", "Product")], "carrots")
put(get_data("ham", "lmerTest"), "ham")
put(get_data("TVbo", "lmerTest")[c("Assessor", "TVset", "Repeat", "Picture",
    "Coloursaturation", "Noise", "Sharpness", "Contrast")], "TVbo")
for (name in c("Assay", "BodyWeight", "Pixel", "RatPupWeight"))
  put(get_data(name, "nlme"), name)
for (name in c("nlschools", "petrol")) put(get_data(name, "MASS"), name)

# Subjects crossed with items, about 60 % of the pairs observed; c is the condition as
# -0.5 or 0.5 and varies within subjects and within items.
seed(101)
d <- expand.grid(item = 1:24, subj = 1:40)
d <- d[runif(nrow(d)) < 0.6, c("subj", "item")]
d$c <- ifelse((d$subj + d$item) %% 2 == 0, -0.5, 0.5)
d$cond <- ifelse(d$c < 0, "ctrl", "test")
d$x <- round(rnorm(nrow(d)), 3)
u <- cbind(rnorm(40, 0, 30), rnorm(40, 0, 15))
u[, 2] <- 0.4 * u[, 1] * 0.5 + u[, 2]
w <- cbind(rnorm(24, 0, 20), rnorm(24, 0, 8))
d$y <- round(500 + 25 * d$c + 8 * d$x - 4 * d$c * d$x + u[d$subj, 1] + w[d$item, 1] +
  (u[d$subj, 2] + w[d$item, 2]) * d$c + rnorm(nrow(d), 0, 45), 3)
put(d, "sim_crossed")

# Pupils in classes in schools; class labels repeat across schools, some classes and
# some treatments within schools are absent; score_na and x_na carry missing values.
seed(102)
d <- expand.grid(pupil = 1:9, class = letters[1:4], school = sprintf("s%02d", 1:14))
cell <- interaction(d$school, d$class, drop = TRUE)
gone <- sample(levels(cell), 13)
d <- d[!(cell %in% gone) & runif(nrow(d)) < 0.75, ]
cell <- interaction(d$school, d$class, drop = TRUE)
d$treat <- c("none", "low", "high")[sample(3, nlevels(cell), TRUE)][as.integer(cell)]
d$x <- round(rnorm(nrow(d), 10, 2), 2)
a <- rnorm(14, 0, 3)
s <- rnorm(14, 0, 0.6)
b <- rnorm(nlevels(cell), 0, 2)
school <- as.integer(factor(d$school))
d$score <- round(50 + c(none = 0, low = 1.5, high = 3)[d$treat] + 0.8 * d$x +
  a[school] + s[school] * (d$x - 10) + b[as.integer(cell)] + rnorm(nrow(d), 0, 4), 2)
d$score_na <- replace(d$score, sample(nrow(d), 20), NA)
d$x_na <- replace(d$x, sample(nrow(d), 15), NA)
put(d[c("school", "class", "treat", "x", "score", "score_na", "x_na")], "sim_nested")

# Prior weights w (residual variance 1/w) and a known offset z.
seed(103)
g <- rep(1:15, times = sample(4:12, 15, TRUE))
d <- data.frame(g = g, x = round(runif(length(g), 0, 5), 3),
                w = round(rgamma(length(g), 2, 1) + 0.2, 2),
                z = round(rnorm(length(g), 3, 1), 3))
d$y <- round(d$z + 2 + 1.5 * d$x + rnorm(15, 0, 1.2)[g] + rnorm(15, 0, 0.4)[g] * d$x +
  rnorm(nrow(d)) / sqrt(d$w), 4)
put(d, "sim_weights")

# The truth is singular: the slope of a group is an exact multiple of its intercept,
# and the factor h has no effect at all.
seed(104)
d <- data.frame(g = rep(1:20, each = 8), h = rep(1:8, 20),
                x = round(runif(160, -1, 1), 3))
u <- rnorm(20)
d$y <- round(3 + d$x + 1.5 * u[d$g] + 0.6 * u[d$g] * d$x + rnorm(160), 4)
put(d, "sim_singular")

# 3 x 2 x 2 factorial in 6 blocks, unbalanced, with cell (a3, b2, c2) empty; dose is a
# function of a (a1 0, a2 1, a3 2), so beside a it is redundant.
seed(105)
d <- expand.grid(c = c("c1", "c2"), b = c("b1", "b2"), a = c("a1", "a2", "a3"),
                 block = 1:6)
d <- d[!(d$a == "a3" & d$b == "b2" & d$c == "c2") & runif(nrow(d)) < 0.9, 4:1]
d$dose <- as.integer(factor(d$a)) - 1L
d$y <- round(10 + c(0, 1, 2.5)[factor(d$a)] + (d$b == "b2") - 0.5 * (d$c == "c2") +
  0.8 * (d$a == "a2" & d$b == "b2") + rnorm(6, 0, 1.5)[d$block] + rnorm(nrow(d)), 3)
put(d, "sim_factorial")
