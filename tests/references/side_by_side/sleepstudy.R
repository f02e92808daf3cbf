# The model of a mixform fit in R: run it with `Rscript <this file>`.
# It reads the CSV file of its own name and writes its findings to one ending in .out.
options(contrasts = c("contr.treatment", "contr.poly"))
started <- grep("^--file=", commandArgs(), value = TRUE)
program <- if (length(started)) sub("^--file=", "", started[1]) else "model.R"
stem <- sub("\\.[Rr]$", "", program)
missing <- Filter(function(p) !requireNamespace(p, quietly = TRUE), c("lme4", "lmerTest"))
if (length(missing)) {
  message("packages missing: ", paste(missing, collapse = ", "))
  quit(status = 3)
}
data <- read.csv(paste0(stem, ".csv"), check.names = FALSE, encoding = "UTF-8",
                 na.strings = character(0), stringsAsFactors = FALSE,
                 colClasses = c("numeric", "numeric", "character"))
names(data) <- c("Reaction", "Days", "Subject")
data[["Subject"]] <- factor(data[["Subject"]], levels = c("308", "309", "310", "330", "331", "332", "333", "334", "335", "337", "349", "350", "351", "352", "369", "370", "371", "372"))

model <- Reaction ~ 1 + Days + (1 + Days | Subject)

out <- file(paste0(stem, ".out"), "w")
say <- function(...) {
  fields <- gsub("[\t\r\n]+", " ", enc2utf8(as.character(c(...))))
  writeLines(paste(fields, collapse = "\t"), out, useBytes = TRUE)
}
number <- function(x) formatC(x, digits = 17, width = 1, format = "g")
marks <- function(x) {
  rows <- seq_along(x)
  number(c(sum(x * cos(rows)), sum(x * sin(rows))))
}
heard <- character(0)
listen <- function(expression) withCallingHandlers(expression,
  warning = function(w) {
    heard <<- c(heard, paste("warning:", conditionMessage(w)))
    invokeRestart("muffleWarning")
  },
  message = function(m) {
    heard <<- c(heard, conditionMessage(m))
    invokeRestart("muffleMessage")
  })
fastest <- function(expression) {  # of three, if it is a short one
  program <- substitute(expression)
  taken <- numeric(0)
  while (length(taken) < 3 && (!length(taken) || taken[1] < 1))
    taken <- c(taken, system.time(eval(program, globalenv()))[["elapsed"]])
  min(taken)
}
say("mixform-lme4", 1)
say("version", "R", paste(R.version$major, R.version$minor, sep = "."))
for (p in c("lme4", "lmerTest")) say("version", p, as.character(packageVersion(p)))
say("formula", paste(deparse(model), collapse = " "))
seconds <- fastest(fitted <- listen(lme4::lmer(model, data, REML = TRUE)))
test_seconds <- system.time({
  tested <- listen(lmerTest::as_lmerModLmerTest(fitted))
  fixed <- coef(summary(tested))
})[["elapsed"]]
print(summary(tested), correlation = FALSE)

say("method", "TRUE")
say("response", nobs(fitted), marks(lme4::getME(fitted, "y")))
say("criterion", number(-2 * as.numeric(logLik(fitted))))
say("sigma", number(sigma(fitted)))
say("seconds", number(seconds), number(test_seconds))
X <- lme4::getME(fitted, "X")
for (i in seq_len(ncol(X)))
  say("fixed", colnames(X)[i], marks(X[, i]),
      number(fixed[i, c("Estimate", "Std. Error", "df", "Pr(>|t|)")]))
Zt <- lme4::getME(fitted, "Ztlist")
covariances <- lme4::VarCorr(fitted)
terms <- lme4::getME(fitted, "cnms")
place <- 0
for (j in seq_along(terms)) {
  sd <- attr(covariances[[j]], "stddev")
  cor <- attr(covariances[[j]], "correlation")
  for (i in seq_along(sd)) {
    column <- as.numeric(Matrix::colSums(Zt[[place + i]]))
    say("random", j, i, names(terms)[j], terms[[j]][i], marks(column), number(sd[i]))
    for (k in seq_len(i - 1)) say("correlation", j, k, i, number(cor[i, k]))
  }
  place <- place + length(sd)
}
if (lme4::isSingular(fitted)) say("singular")
verdict <- unlist(fitted@optinfo$conv$lme4$messages)
heard <- c(heard, setdiff(verdict, sub("^warning: ", "", heard)))
for (text in unique(trimws(heard))) say("message", text)
say("end")
close(out)
