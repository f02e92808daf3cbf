"""Progress of long work: nothing for a few seconds, then one line.

Goes in: calls after each step. Comes out: a tqdm bar on stderr, if tqdm is installed
(extra ``progress``). Short work never imports tqdm.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from mixform._typing import Vector

#: Seconds before a bar appears.
PATIENCE = 3.0


class Progress:
    """Show how much of a long work is done.

    Parameters
    ----------
    show : True from the start, False never, None after a few seconds
    total : number of steps, if known
    label : what the steps are, in the plural: "refits"

    Examples
    --------
    >>> with Progress(False, 2, "refits") as bar:
    ...     for _ in range(2):
    ...         bar.advance()
    >>> bar.done
    2
    """

    def __init__(self, show: bool | None, total: int | None, label: str) -> None:
        self.show, self.total, self.label = show, total, label
        self.start = time.monotonic()
        self.done = 0
        self.bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """Count ``n`` more steps as done; ``note`` stands behind the bar."""
        self.done += n
        if self.show is False:
            return
        if self.bar is None:
            if not self.show and time.monotonic() - self.start < PATIENCE:
                return
            self.bar = _open_bar(self.total, self.label, self.done)
        if note is not None:
            self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(self.done - self.bar.n)


class SearchProgress:
    """Show the evaluations of a search that takes more than a few seconds.

    Parameters
    ----------
    show : True from the start, False never, None after a few seconds
    """

    def __init__(self, show: bool | None) -> None:
        self.progress = Progress(show, None, "evaluations")

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.__exit__(kind, error, trace)

    def __call__(self, count: int, criterion: float, theta: Vector) -> None:
        """Report an evaluation of the criterion at theta."""
        steps = count - self.progress.done
        self.progress.advance(steps, f"criterion {criterion:.6f}")


class _Silent:
    """Takes the place of a bar where tqdm is not installed."""

    n = 0

    def set_postfix_str(self, text: str, *, refresh: bool) -> None: ...

    def update(self, steps: int) -> None: ...

    def close(self) -> None: ...


def _open_bar(total: int | None, label: str, done: int) -> Any:
    try:
        from tqdm import tqdm  # noqa: PLC0415 - an extra, for long fits only
    except ImportError:
        return _Silent()
    return tqdm(
        desc="mixform", unit=f" {label}", total=total, initial=done, leave=False
    )
