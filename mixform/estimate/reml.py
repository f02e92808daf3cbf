"""Estimate a model by REML or ML: search, boundary, certificate, record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.covariance import is_curved
from mixform.design import Design
from mixform.errors import DesignError, suggest
from mixform.estimate.certificate import (
    EIGENVALUE_TOLERANCE,
    canonical_signs,
    certify,
    interior_parameters,
    is_singular,
    leave_along,
    snap_to_boundary,
)
from mixform.estimate.criterion import evaluate
from mixform.estimate.determination import snap_to_edge
from mixform.estimate.fit import Fit
from mixform.estimate.held import Given, is_held, own_structure
from mixform.estimate.problem import Problem, build_problem, split_blocks
from mixform.estimate.trust_region import minimize
from mixform.estimate.verdict import Found, vanishes, verdict
from mixform.mme import few_threads

#: Called with the count of evaluations, the criterion and theta.
Trace = Callable[[int, float, Vector], None]

#: Evaluations after which a search is interrupted to see whether it follows the valley
#: beside a singular covariance, where turning T's columns costs nothing.
PATIENCE = 50


#: The second start, as a share of the first: the small variances where another
#: minimum was found on random maximal models whose first search ended singular.
SMALL = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Options of the search.

    Attributes
    ----------
    tolerance : predicted decrease of the criterion at which to stop, deviance units
    max_evaluations : of the criterion, in all
    backend : "dense" or "sparse" solver of the mixed model equations; "auto" chooses
        by the number of random effects; "cg" for conjugate gradients, where all
        variances were given: a solution without criterion and prediction errors
    certified_decrease : predicted decrease up to which the optimum is certified
    trace : True prints the count, the criterion and theta after each evaluation; a
        function is called with them (theta on the scaled problem)
    """

    tolerance: float = 1e-9
    max_evaluations: int = 1000
    backend: str = "auto"
    certified_decrease: float = 1e-6
    trace: bool | Trace = False

    def __post_init__(self) -> None:
        if not self.tolerance > 0.0 or not self.certified_decrease > 0.0:
            raise DesignError("control: tolerances must be positive.")
        if self.max_evaluations < 1:
            raise DesignError("control: max_evaluations must be at least 1.")


def resolve_control(control: Control | Mapping[str, object] | None) -> Control:
    """Return the options; a mapping may name some of them.

    Raises
    ------
    DesignError : an unknown option, or no mapping
    """
    if isinstance(control, Control):
        return control
    if control is not None and not isinstance(control, Mapping):
        raise DesignError(
            f"control is a {type(control).__name__}, not a mapping.",
            hint='Write control={"tolerance": 1e-10}.',
        )
    known = [field.name for field in fields(Control)]
    for name in control or {}:
        if name not in known:
            raise DesignError(
                f"Unknown control option {name!r}.",
                hint=suggest(str(name), known, "Options"),
            )
    return Control(**(control or {}))  # type: ignore[arg-type]


def estimate(
    design: Design,
    *,
    method: str,
    control: Control,
    start: object = None,
    progress: Trace | None = None,
    given: Given | None = None,
) -> Fit:
    """Fit the model.

    Parameters
    ----------
    design : from `build_design`
    method : "REML" or "ML"
    start : (t,) theta to start from, in the user's units, as `Result.theta`
    control : options of the search
    progress : called with the count, the criterion and theta after each evaluation
    given : variances that are held
    """
    problem = build_problem(
        design, reml=method == "REML", backend=control.backend, given=given
    )
    traces = [t for t in (_tracer(control.trace), progress) if t is not None]
    with few_threads(problem.equations):
        if start is None:
            found = search_anew(problem, control, traces)
        else:
            theta = scaled_start(problem, start)
            found = search(problem, theta, control, traces, by_em=False)
    return record(design, method, found, control)


def search_anew(problem: Problem, control: Control, traces: Sequence[Trace]) -> Found:
    """Search without knowing anything of the data, from a second start if need be."""
    theta = problem.start()
    found = search(problem, theta, control, traces, by_em=True)
    if found[3] >= control.max_evaluations or not may_be_local(problem, found):
        return found
    theta = small_start(problem)
    again = search(problem, theta, control, traces, by_em=False, count=found[3])
    return better(found, again)


def small_start(problem: Problem) -> Vector:
    """Return the second start (t + r,): small variances, residual parameters kept."""
    psi = problem.start()
    psi[: problem.n_theta] *= SMALL
    if problem.held is not None and problem.held.tied is not None:
        psi[problem.held.slot] /= SMALL  # 1 / sigma, no variance
    return psi


def has_local_minima(problem: Problem) -> bool:
    """Whether a term is of the kind that has other minima where it is singular."""
    return any(
        block.k > 1 and structure.couples
        for block, structure in zip(problem.blocks, problem.structures, strict=True)
    )


def may_be_local(problem: Problem, found: Found) -> bool:
    """Whether a vector-valued term ended singular, where there may be other minima."""
    return any(
        len(T) > 1
        and structure.couples
        and (is_singular(structure, T) or structure.rank(len(T)) < len(T))
        for T, structure in zip(found[1].T, problem.structures, strict=True)
    )


def better(one: Found, two: Found) -> Found:
    """Return the lower of two searches, the second of which counted on."""
    best = two if two[1].criterion < one[1].criterion - 1e-9 else one
    return (*best[:3], two[3])


def search(
    problem: Problem,
    theta: Vector,
    control: Control,
    traces: Sequence[Trace],
    *,
    by_em: bool,
    count: int = 0,
) -> Found:
    """Search, make the boundary exact, and leave it where it is a false zero.

    ``count`` evaluations have been made before.
    """
    first = count

    def trace(n_here: int, criterion: float, where: Vector) -> None:
        for call in traces:
            call(count + n_here, criterion, where)

    while True:
        end = minimize(
            problem,
            theta,
            tolerance=control.tolerance,
            max_evaluations=min(max(control.max_evaluations - count, 1), PATIENCE),
            by_em=by_em and count == first,
            trace=trace if traces else None,
        )
        count += end.n_evaluations
        theta, here, extra = snap_to_boundary(
            problem,
            end.theta,
            end.evaluation,
            polish=end.n_evaluations >= PATIENCE,
        )
        count += extra
        theta, here, extra = snap_to_edge(problem, theta, here)
        count += extra
        signed = canonical_signs(problem, theta)
        if np.any(signed != theta):
            theta, here = signed, evaluate(problem, signed)
        certificate = certify(problem, theta, here)
        done = count >= control.max_evaluations or (
            vanishes(problem, theta)
            and certificate.predicted_decrease > control.certified_decrease
        )
        if not done and certificate.smallest_eigenvalue < -EIGENVALUE_TOLERANCE:
            assert certificate.direction is not None, "an eigenvalue has a direction"
            left, extra = leave_along(problem, theta, here, certificate.direction)
            count += extra
            if left is not theta:
                theta = left
                continue
        elif (
            not done
            and certificate.predicted_decrease > control.certified_decrease
            and end.n_evaluations > 2
        ):
            continue  # a fresh search, the secant forgotten
        return theta, here, certificate, count


def _tracer(trace: bool | Trace) -> Trace | None:
    if isinstance(trace, bool):
        return _print_trace if trace else None
    return trace


def _print_trace(count: int, criterion: float, theta: Vector) -> None:
    values = " ".join(f"{value:.6g}" for value in theta)
    print(f"{count:4d}  {criterion:.9f}  {values}")  # noqa: T201 - asked for


def scaled_start(problem: Problem, start: object, rho: Vector | None = None) -> Vector:
    """Return parameters (t + r,) of the scaled problem from theta in the user's units.

    Parameters
    ----------
    start : (t,) theta
    rho : (r,) parameters of the residual structure; None for those of `Problem.start`
    """
    values = np.asarray(start, dtype=np.float64)
    own = [own_structure(structure) for structure in problem.structures]
    sizes = [s.n_parameters(b.k) for s, b in zip(own, problem.blocks, strict=True)]
    if values.shape != (sum(sizes),) or not np.all(np.isfinite(values)):
        raise DesignError(
            f"start must be {sum(sizes)} finite numbers, got shape {values.shape}.",
            hint="Give theta in the order of Result.theta.",
        )
    out = problem.start()
    ends = np.cumsum([0, *sizes]).tolist()
    for j, (structure, where, C) in enumerate(
        zip(problem.structures, problem.theta_slices, problem.Z_scales, strict=True)
    ):
        values_j = values[ends[j] : ends[j + 1]]
        out[where] = (
            structure.rescaled(values_j, C.diagonal())
            if is_curved(structure)
            else structure.from_factor(C @ own[j].factor(values_j, len(C)))
        )
    if rho is not None:
        out[problem.n_theta :] = rho
    return out


def record(design: Design, method: str, found: Found, control: Control) -> Fit:
    """Put the solution back into the user's units."""
    theta, here, certificate, _ = found
    problem = here.problem
    sigma = float(np.sqrt(here.sigma2)) * problem.y_scale
    T: tuple[Matrix, ...] = tuple(
        np.linalg.solve(C, T) for T, C in zip(here.T, problem.Z_scales, strict=True)
    )
    user_theta = [
        structure.rescaled(theta[where], 1.0 / C.diagonal())
        if is_curved(structure)
        else own_structure(structure).from_factor(T_j)
        for structure, where, T_j, C in zip(
            problem.structures, problem.theta_slices, T, problem.Z_scales, strict=True
        )
    ]
    R = design.fixed.R
    beta = np.linalg.solve(R, problem.projection + problem.y_scale * here.beta)
    half = np.linalg.solve(R, here.R_inverse)
    b_scaled = problem.equations.Lambda_dot(here.T, here.u[:, None])
    b = tuple(
        problem.y_scale * np.linalg.solve(C, block.at_levels(part).T).T
        for block, part, C in zip(
            problem.blocks,
            split_blocks(b_scaled[:, 0], problem.blocks),
            problem.Z_scales,
            strict=True,
        )
    )
    criterion = here.criterion
    criterion += 2.0 * problem.residual_df * float(np.log(problem.y_scale))
    if problem.reml:
        criterion += 2.0 * float(np.log(np.abs(np.diag(R))).sum())
    interior = interior_parameters(problem, theta)
    singular = tuple(
        j
        for j, (structure, T_j) in enumerate(
            zip(problem.structures, here.T, strict=True)
        )
        if is_singular(structure, T_j) and not is_held(structure)
    )
    return Fit(
        design=design,
        method=method,
        evaluation=here,
        scaled_theta=theta,
        T=T,
        theta=np.concatenate(user_theta) if user_theta else np.empty(0),
        rho=theta[problem.n_theta :],
        interior=interior,
        beta=beta,
        V_beta=sigma**2 * half @ half.T,
        b=b,
        sigma=sigma,
        criterion=criterion,
        certificate=certificate,
        convergence=verdict(found, int(interior.sum()), control.certified_decrease),
        singular_terms=singular,
    )
