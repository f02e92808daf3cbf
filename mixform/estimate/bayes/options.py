"""Options of the sampler, read from ``control``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np

from mixform.errors import DesignError, suggest
from mixform.estimate.reml import Control, resolve_control


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Options of the sampler.

    Attributes
    ----------
    draws, tune : kept draws of each chain, and those before that tune the sampler
    chains : number of chains
    cores : chains run at a time, on threads that share Python's lock
    seed : whole number for the same draws again; None for others each time
    target_accept : acceptance probability that the step size is tuned to
    effects : how many of the draws get beta and b, evenly spaced; None for all
    """

    draws: int = 1000
    tune: int = 1000
    chains: int = 4
    cores: int = 1
    seed: int | None = None
    target_accept: float = 0.8
    effects: int | None = None

    def __post_init__(self) -> None:
        least = {
            "draws": 4,
            "tune": 50,
            "chains": 1,
            "cores": 1,
            "seed": 0,
            "effects": 1,
        }
        for name, limit in least.items():
            value: Any = getattr(self, name)
            if value is None and name in ("seed", "effects"):
                continue
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or cast("int", value) < limit:
                raise DesignError(
                    f"control: {name} must be a whole number of at least {limit}, got "
                    f"{value!r}."
                )
        target = self.target_accept
        if not isinstance(target, float) or not 0.0 < target < 1.0:
            raise DesignError(
                f"control: target_accept must lie between 0 and 1, got {target!r}."
            )

    @property
    def n_effects(self) -> int:
        """Number of draws with beta and b."""
        total = self.chains * self.draws
        return total if self.effects is None else min(self.effects, total)


def resolve_sampling(control: object) -> tuple[Sampling, Control]:
    """Return the options of the sampler and those of the search for its start.

    Raises
    ------
    DesignError : an unknown option, or a value that makes no sense
    """
    if isinstance(control, Control) or control is None:
        return Sampling(), resolve_control(control)
    if not isinstance(control, Mapping):
        raise DesignError(
            f"control is a {type(control).__name__}, not a mapping.",
            hint='Write control={"draws": 2000, "seed": 1}.',
        )
    given = {str(n): v for n, v in cast("Mapping[object, Any]", control).items()}
    own = [field.name for field in fields(Sampling)]
    search = [field.name for field in fields(Control)]
    for name in given:
        if name not in own + search:
            raise DesignError(
                f"Unknown control option {name!r}.",
                hint=suggest(name, own + search, "Options"),
            )
    ours = {name: value for name, value in given.items() if name in own}
    rest = {name: value for name, value in given.items() if name in search}
    return Sampling(**ours), resolve_control(rest)
