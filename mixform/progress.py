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


class SearchProgress:
    """Show the evaluations of a search that takes more than a few seconds.

    Parameters
    ----------
    show : True from the start, False never, None after a few seconds
    """

    def __init__(self, show: bool | None) -> None:
        self.show = show
        self.start = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, count: int, criterion: float, theta: Vector) -> None:
        """Report an evaluation of the criterion at theta."""
        if self.show is False:
            return
        if self.bar is None:
            if not self.show and time.monotonic() - self.start < PATIENCE:
                return
            self.bar = _open_bar()
        self.bar.set_postfix_str(f"criterion {criterion:.6f}", refresh=False)
        self.bar.update(count - self.bar.n)


class _Silent:
    """Takes the place of a bar where tqdm is not installed."""

    n = 0

    def set_postfix_str(self, text: str, *, refresh: bool) -> None: ...

    def update(self, steps: int) -> None: ...

    def close(self) -> None: ...


def _open_bar() -> Any:
    try:
        from tqdm import tqdm  # noqa: PLC0415 - an extra, for long fits only
    except ImportError:
        return _Silent()
    return tqdm(desc="mixform", unit=" evaluations", leave=False)
