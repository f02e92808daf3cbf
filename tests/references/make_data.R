# Write the data sets that only the reference models use to data/*.csv beside this file.
#
#   Rscript make_data.R [output directory]
#
# Sources: lmerTest (carrots, ham, TVbo), nlme (Assay, BodyWeight, Ovary, Pixel,
# RatPupWeight, Wheat2), MASS (nlschools, petrol), and simulations (sim_*) with seeds.
# README.md cites them. fev.csv was typed in, see README.md.

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

# Repeated measures and coordinates, for residual_structures.R. Ovary: `order` numbers
# the days of a mare. Wheat2: plots of one field.
ovary <- as.data.frame(get_data("Ovary", "nlme"))
ovary <- ovary[order(as.integer(as.character(ovary$Mare)), ovary$Time), ]
ovary$order <- ave(ovary$Time, as.character(ovary$Mare), FUN = seq_along)
put(ovary[c("Mare", "order", "Time", "follicles")], "Ovary")
put(get_data("Wheat2", "nlme"), "Wheat2")

# Sixty patients of two arms, five visits at irregular times, about one in six missing;
# SD grows with the visit and is larger for men; w is the number of readings averaged.
seed(107)
d <- expand.grid(visit = 1:5, id = 1:60)
d$arm <- ifelse(d$id %% 2 == 0, "active", "control")
d$sex <- rep(ifelse(runif(60) < 0.5, "F", "M"), each = 5)
d$x <- rep(round(rnorm(60), 2), each = 5)
d$v <- paste0("v", d$visit)
d$time <- round(2 * (d$visit - 1) + runif(300, 0, 1.2), 1)
d$w <- sample(1:4, 300, TRUE)
own <- rep(rnorm(60, 0, 2), each = 5)
e <- as.vector(replicate(60, arima.sim(list(ar = 0.6), 5)))
d$y <- round(20 + 0.8 * d$visit + 1.5 * (d$arm == "active") * d$visit / 5 + d$x + own +
  (1 + 0.35 * d$visit) * ifelse(d$sex == "M", 1.5, 1) * e + rnorm(300, 0, 0.8), 2)
d <- d[runif(300) > 0.17, ]
d$id <- sprintf("p%02d", d$id)
put(d[c("id", "arm", "sex", "x", "visit", "v", "time", "w", "y")], "sim_visits")

# Four blocks of 6 x 5 plots, not quite on a grid; three treatments.
seed(108)
d <- expand.grid(east = 1:6, north = 1:5, block = 1:4)
far <- function(p) as.matrix(dist(p))
e <- unlist(lapply(1:4, function(b) {
  p <- as.matrix(d[d$block == b, 1:2])
  crossprod(chol(4 * exp(-far(p) / 2) + 0.8 * diag(30)), rnorm(30))
}))
d$east <- round(d$east + runif(120, -0.2, 0.2), 2)
d$north <- round(d$north + runif(120, -0.2, 0.2), 2)
d$trt <- sample(rep(c("a", "b", "c"), 40))
d$y <- round(50 + 2 * (d$trt == "b") - (d$trt == "c") + e, 2)
d$block <- paste0("b", d$block)
put(d[c("block", "east", "north", "trt", "y")], "sim_field")
