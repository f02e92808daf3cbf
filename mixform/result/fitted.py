"""From a call to the result that users hold, of either kind."""

from __future__ import annotations

from mixform.call import Call, draw, run, warn_of
from mixform.result.bayes import BayesResult
from mixform.result.result import Result


def fitted(call: Call, progress: bool | None = None) -> Result | BayesResult:
    """Fit or draw what a call asks for, and warn at the caller of a public function."""
    if call.method == "BAYES":
        posterior = draw(call, progress)
        warn_of(posterior, stacklevel=4)
        return BayesResult(posterior, call)
    record = run(call, progress)
    warn_of(record, stacklevel=4)
    return Result(record, call)
