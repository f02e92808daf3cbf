"""Many draws and refits: in chunks, by whoever does the work, and interruptible.

Goes in: a function of a chunk of draws. Comes out: its parts in order, with counts of
what went wrong. joblib or any `map` may do the work; the parts are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mixform._typing import Matrix
from mixform.errors import InferenceError
from mixform.estimate.batch.batch import Refits
from mixform.inference.resampling.simulation import Simulator
from mixform.progress import Progress

#: A number of workers, or something that maps as the built-in `map` does.
Workers = int | Callable[..., Iterable[Any]]
#: The random stream of a chunk, and its number of draws.
Chunk = tuple[np.random.SeedSequence, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What came of a chunk of draws.

    Attributes
    ----------
    values : (draws made, statistics); NaN where something failed
    failures : what the failures said
    n_singular : refits with a singular covariance
    n_uncertified : refits whose optimum is not certified
    stopped : whether the work was interrupted
    """

    values: Matrix
    failures: tuple[str, ...]
    n_singular: int
    n_uncertified: int
    stopped: bool = False


class Measure(Protocol):
    """What is taken from the refits to a chunk of responses."""

    n_values: int
    stack_size: int

    def __call__(self, Y: Matrix) -> tuple[Matrix, dict[int, str], Sequence[Refits]]:
        """Return the values (r, n_values), failures by draw, and the refits."""
        ...


def replicate(
    simulator: Simulator,
    measure: Measure,
    chunk: Chunk,
    advance: Callable[[int], None] | None = None,
) -> Part:
    """Draw a chunk of responses and measure their refits, until interrupted."""
    Y = simulator.draw(*chunk)
    values = np.full((Y.shape[1], measure.n_values), np.nan)
    failures: list[str] = []
    done = n_singular = n_uncertified = 0
    stopped = False
    try:
        while done < Y.shape[1]:
            here = slice(done, min(done + measure.stack_size, Y.shape[1]))
            found, failed, refits = measure(Y[:, here])
            values[here] = found
            failures += failed.values()
            singular = np.any([part.singular for part in refits], axis=0)
            certified = np.all([part.converged for part in refits], axis=0)
            fitted = np.all([np.isfinite(part.sigma) for part in refits], axis=0)
            n_singular += int(singular.sum())
            n_uncertified += int((fitted & ~certified).sum())
            done = here.stop
            if advance is not None:
                advance(len(found))
    except KeyboardInterrupt:
        stopped = True
    return Part(
        values=values[:done],
        failures=tuple(failures),
        n_singular=n_singular,
        n_uncertified=n_uncertified,
        stopped=stopped,
    )


def run_chunks(
    work: Callable[..., Part],
    chunks: Sequence[Chunk],
    workers: Workers,
    bar: Progress,
) -> Part:
    """Return the parts of all chunks, joined in order; of those done, if interrupted.

    Parameters
    ----------
    work : `replicate` with its first arguments given
    workers : 1 for this process, a number of processes for joblib (-1 for all), or a
        function used as `map`

    Raises
    ------
    InferenceError : workers is neither, or joblib is not installed
    """
    parts: list[Part] = []
    stopped = False
    try:
        for part in _parts(work, chunks, workers, bar):
            parts.append(part)
            if part.stopped:
                break
    except KeyboardInterrupt:
        stopped = True
    if not parts:
        raise KeyboardInterrupt
    return Part(
        values=np.concatenate([part.values for part in parts]),
        failures=tuple(text for part in parts for text in part.failures),
        n_singular=sum(part.n_singular for part in parts),
        n_uncertified=sum(part.n_uncertified for part in parts),
        stopped=stopped or parts[-1].stopped,
    )


def _parts(
    work: Callable[..., Part], chunks: Sequence[Chunk], workers: Workers, bar: Progress
) -> Iterator[Part]:
    if callable(workers):
        found = iter(workers(work, chunks))
    elif isinstance(workers, bool) or not isinstance(workers, int) or workers == 0:
        raise InferenceError(
            f"workers is {workers!r}.",
            hint="Give a number of processes, -1 for all, or a function used as map.",
        )
    elif workers == 1:
        yield from (work(chunk, bar.advance) for chunk in chunks)
        return
    else:
        found = _by_joblib(work, chunks, workers)
    for part in found:
        bar.advance(len(part.values))
        yield part


def _by_joblib(
    work: Callable[..., Part], chunks: Sequence[Chunk], workers: int
) -> Iterator[Part]:
    # An extra, for long work only.
    try:
        from joblib import Parallel, delayed  # noqa: PLC0415
    except ImportError:
        raise InferenceError(
            f"workers={workers} needs joblib, which is not installed.",
            hint="Install it with: pip install 'mixform[parallel]', or give a function "
            "used as map.",
        ) from None
    pool: Any = Parallel(n_jobs=workers, return_as="generator")
    yield from pool(delayed(work)(chunk) for chunk in chunks)


def notes_of(part: Part, nsim: int) -> tuple[str, ...]:
    """Say what a reader of the results must know."""
    done = len(part.values)
    notes: list[str] = []
    if part.stopped:
        notes.append(f"Interrupted after {done} of {nsim} draws.")
    if part.n_singular:
        notes.append(f"{part.n_singular} of {done} refits are singular.")
    if part.n_uncertified:
        notes.append(f"{part.n_uncertified} of {done} refits are not certified.")
    if part.failures:
        kinds = dict.fromkeys(part.failures)
        first = "; ".join(list(kinds)[:3]) + ("; ..." if len(kinds) > 3 else "")
        notes.append(f"{len(part.failures)} of {done} draws failed: {first}")
    return tuple(notes)


def require_some(part: Part, what: str) -> None:
    """Refuse a result in which every draw failed.

    Raises
    ------
    InferenceError : with the first message
    """
    if len(part.values) and len(part.failures) >= len(part.values):
        raise InferenceError(
            f"{what} failed in all {len(part.values)} draws, first with: "
            f"{part.failures[0]}"
        )
