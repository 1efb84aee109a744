"""The fits of a :class:`Problem`: in lock-step, side by side or in turn."""

import numpy as np

from skfc import _preconditioner
from skfc._array import take
from skfc._driver import Run
from skfc._monitors import Progress, ProgressLines
from skfc._objective import Objective
from skfc._outcome import OVERFLOW, Fit, Status
from skfc._penalty import ElasticNet
from skfc._pool import thread_map
from skfc._rows import LocalRows
from skfc._runtime import fit_arithmetic
from skfc._screening import Screened
from skfc.solvers import SOLVERS


def solve_warm(problem, method, C, start, *, suspicious=True, **options):
    """The fits from a `start` that may be far off: never above those from the null model.

    The lower of the two starts is taken. With `suspicious`, every estimate of the gap is
    thorough. A fit that gets stuck begins again from the null model.
    """
    objective = problem.objective(C)
    with fit_arithmetic(problem.rows):
        at_start, at_null = (objective.at(t).value for t in (start, problem.null_model()))
    if not (at_start <= at_null).all():
        return solve(problem, method, C, **options)
    fits, solver = solve(problem, method, C, start=start, suspicious=suspicious, **options)
    if any(fit.status is Status.STUCK for fit in fits):
        fits, solver = solve(problem, method, C, **options)
    return fits, solver


def solve(
    problem, method, C, *, start=None, monitors=(), cache=None, name="skfc", suspicious=False
):
    """Fits at C (n_problems,), and the name of the solver.

    Problems are solved in lock-step if the solver can, else in turn.

    Parameters
    ----------
    method : Method
    start : theta (P, K) near the solutions, or None: the null model, or zeros for the
        textbook gradient
    cache : dict that keeps preconditioners, with their samples, from one C to the next
    name : what lines of progress call the fits, or a function of the indices of problems
    """
    if problem.n_classes == 1:
        fits = [nothing_to_solve(problem.frame, value) for value in C]
        show(problem, fits, monitors)
        return fits, method.named
    with fit_arithmetic(problem.rows):
        objective = problem.objective(C)
        if method.solver in SOLVERS and SOLVERS[method.solver].proximal:
            objective = objective.with_penalty(ElasticNet.of(objective.penalty))
        method = method.choose(objective)
        everything = np.arange(problem.n_problems)
        start = cold_start(problem, method) if start is None else start

        def run(index, part):
            watched = monitors
            if method.verbose:
                called = name(index) if callable(name) else name
                watched = (*monitors, ProgressLines(int(method.verbose), called))
            preconditioner = preconditioner_of(problem, part, method, index, cache)
            theta = take(start, objective.columns(index), axis=1)
            return run_once(problem, part, method, preconditioner, theta, watched, suspicious)

        if SOLVERS[method.solver].batched or problem.n_problems == 1:
            fits = run(everything, objective)
        else:
            quiet = not (monitors or method.verbose or SOLVERS[method.solver].options)
            fits = one_by_one(problem, run, objective, quiet)
    for fit, value in zip(fits, C, strict=True):
        fit.C = float(value)
    switched = {fit.switched for fit in fits} - {None}
    return fits, max(switched, default=method.solver)


def one_by_one(problem, run, objective, quiet):
    """The fits of problems by themselves: side by side, where nobody watches their steps."""
    indices = np.arange(problem.n_problems)[:, None]
    if not (isinstance(problem.rows, LocalRows) and problem.rows.on_pool):
        return flat(run(index, *objective.problems(index)) for index in indices)
    if problem.alone is None:  # they stay: preconditioners go on with their count of work
        objective.rows.single()  # makes the copy that all of them share
        problem.alone = [problem.rows.alone(index) for index in indices]
    parts = [
        Objective(rows, objective.penalty.problems(index))
        for rows, index in zip(problem.alone, indices, strict=True)
    ]
    before = [rows.work.steps for rows in problem.alone]
    each = thread_map if quiet else map
    found = list(each(lambda pair: run(*pair), zip(indices, parts, strict=True)))
    # To a preconditioner that is used again, the steps of the others have cost time, too.
    taken = [rows.work.steps - b for rows, b in zip(problem.alone, before, strict=True)]
    for rows, own in zip(problem.alone, taken, strict=True):
        rows.work.steps += sum(taken) - own
    return flat(found)


def show(problem, fits, monitors):
    """Show the monitors fits that take no iteration."""
    value = np.zeros(len(fits))
    progress = Progress(
        0, np.arange(len(fits)), len(fits), value, value,
        lambda: problem.coefficients(fits[0].theta),
    )  # fmt: skip
    for monitor in monitors:
        monitor.step(progress)
        monitor.end(fits)


def cold_start(problem, method):
    """Where a cold fit starts."""
    theta = problem.null_model()
    return theta * 0.0 if method.preconditioner is None else theta


def preconditioner_of(problem, objective, method, index, cache):
    """The preconditioner of the problems `index`: new, or that of the C before."""
    key = tuple(index.tolist())
    found = (cache or {}).get(key)
    if found is None:
        try:
            exact = SOLVERS[method.solver].exact
            kind, deferred = method.preconditioner, method.deferred
            found = _preconditioner.make(objective, kind, exact, deferred)
        except np.linalg.LinAlgError as error:
            raise ValueError(OVERFLOW.format(problem.dtype)) from error
        if cache is not None:
            cache[key] = found
    return found


def run_once(problem, objective, method, preconditioner, theta, monitors, suspicious):
    """The fits of an objective from `theta`, in lock-step."""
    solver, coefficients = SOLVERS[method.solver], problem.coefficients
    options = {key: getattr(method, key) for key in solver.options}
    screened = Screened.of(objective) if solver.proximal else None
    if screened is not None:
        objective, theta = screened.objective, screened.cut(theta)
        coefficients = lambda theta: problem.coefficients(screened.whole(theta))  # noqa: E731
    try:
        fits = Run(
            solver, objective, preconditioner, theta, tol=method.tol,
            max_iter=method.max_iter, monitors=monitors, options=options,
            suspicious=suspicious, coefficients=coefficients,
            other=method.other if objective.n_problems == 1 else None,
        ).run()  # fmt: skip
    except np.linalg.LinAlgError as error:
        raise ValueError(OVERFLOW.format(problem.dtype)) from error
    for fit in fits if screened is not None else []:
        fit.theta = screened.whole(fit.theta)
    return fits


def flat(lists):
    """What lists hold, in one."""
    return [item for items in lists for item in items]


def nothing_to_solve(frame, C):
    """The `Fit` where one class has all the weight: its loss is zero with any weights."""
    theta = np.zeros((frame.n_parameters, 1))
    return Fit(theta, Status.CONVERGED, 0, 0.0, 0.0, True, [0.0], float(C))
