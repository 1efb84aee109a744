"""One problem: the fit, the minimum, and what is wrong between them."""

import signal
import threading
import time
import warnings
from contextlib import contextmanager

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks.hostile import net
from benchmarks.hostile.objective import objective, rows_of
from benchmarks.hostile.reference import minimum
from benchmarks.hostile.separation import are_separable
from skfc import SoftmaxFCClassifier

# A minimum below this counts as zero: a distance relative to it says nothing.
ZERO = 1e-6
# The factor within which a gap is to be stated, and a gap that is no more than noise.
HONEST, NOISE = 10, 1e-9
# What rounding of coefficients to float32 may change the objective by, relatively.
NOISE_OF_SINGLE = 1e-6
# `tol` of a second fit, where the minimum of an elastic net is sought.
CLOSE = 1e-9


class OutOfTimeError(Exception):
    """The fit took longer than its limit."""


@contextmanager
def limit(seconds):
    """Raise `OutOfTimeError` inside after so many seconds, where signals allow it."""
    if not hasattr(signal, "setitimer") or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def stop(*_):
        raise OutOfTimeError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fit(problem, seconds=60.0, **changes):
    """The fitted model or the exception, the processor's seconds, and the warnings.

    `changes` are of parameters.
    """
    model = SoftmaxFCClassifier(**{**problem.parameters, **changes})
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="warn"):
        warnings.simplefilter("always")
        begin = time.process_time()
        try:
            with limit(seconds):
                model.fit(problem.X, problem.y, sample_weight=problem.weight)
        except Exception as error:
            model = error
        taken = time.process_time() - begin
    return model, taken, caught


def judge(problem, seconds=60.0):
    """A flat dict of the fit, the minimum, and under "faults" the names of what is wrong."""
    model, taken, caught = fit(problem, seconds)
    kinds = [w.category for w in caught]
    record = {
        "seconds": taken, "warned": any(issubclass(k, ConvergenceWarning) for k in kinds),
        "messages": list(dict.fromkeys(str(w.message) for w in caught)),
        "other_warnings": sorted({k.__name__ for k in kinds if k is not ConvergenceWarning}),
        "error": "", "faults": [],
    }  # fmt: skip
    if isinstance(model, Exception):
        record["error"] = f"{type(model).__name__}: {model}"
        record["faults"] = ["time" if isinstance(model, OutOfTimeError) else "exception"]
        return record
    record |= {"n_iter": int(model.n_iter_), "solver": model.solver_,
               "estimate": float(model.optimality_gap_)}  # fmt: skip
    if not (np.isfinite(model.coef_).all() and np.isfinite(model.intercept_).all()):
        record["faults"] = ["not finite"]
        return record
    rows, begin = rows_of(problem), time.perf_counter()
    value = float(objective(rows, model.coef_, model.intercept_))
    best = least_of(problem, rows, model, seconds / 2)
    if record["warned"] and rows.l2 == 0 and best.attained:
        best.attained = not are_separable(rows)  # a last step may not tell
    least = min(value, best.value)
    record |= {
        "value": value, "minimum": least, "lower": best.lower, "settled": best.settled,
        "attained": best.attained,
        "reference_iterations": best.n_iter, "reference_seconds": time.perf_counter() - begin,
        "gap": (value - least) / least if least > 0 else 0.0,
        "l1_ratio": problem.parameters.get("l1_ratio", 0.0) * bool(rows.l1 > 0),
    }  # fmt: skip
    record["faults"] = faults(record, problem.parameters["tol"], model.coef_.dtype == np.float32)
    return record


def least_of(problem, rows, model, seconds):
    """The :class:`Minimum`; for an elastic net from a closer fit, too, and then from `model`."""
    if rows.l1 == 0:
        return minimum(rows, (model.coef_, model.intercept_), seconds=seconds)
    closer, _, _ = fit(problem, seconds, tol=CLOSE, max_iter=200)
    starts = [] if isinstance(closer, Exception) else [(closer.coef_, closer.intercept_)]
    return net.minimum(rows, [*starts, (model.coef_, model.intercept_)], seconds=seconds)


def faults(record, tol, single):
    """Names of what is wrong.

    `single` allows a fit in float32 to end silently where its `optimality_gap_` states the gap.
    """
    gap, estimate, warned = record["gap"], record["estimate"], record["warned"]
    found = [] if record["settled"] else ["unsettled"]
    if not (record["attained"] or warned):
        found.append("unbounded, silent")
    if not np.isfinite(record["value"]):
        return [*found, "not finite"]
    if record["minimum"] <= ZERO:
        if record["value"] > HONEST * ZERO and not warned:
            found.append("silent, minimum zero")
        return found
    stated = estimate >= gap / HONEST
    if gap > 10 * tol and not warned and not (single and stated):
        found.append("silent")
    if warned and record["settled"] and record["attained"] and gap <= tol:
        found.append("needless warning")
    if gap > NOISE and not stated:
        found.append("estimate low")
    if record.get("l1_ratio") and gap - estimate > (NOISE_OF_SINGLE if single else NOISE):
        found.append("bound broken")
    if record["settled"] and estimate > HONEST * max(gap, NOISE) and estimate > tol:
        found.append("estimate high")
    if estimate == 0 and gap > NOISE:
        found.append("estimate zero")
    return found
