"""Preconditioned conjugate gradients on a Hessian, for problems in lock-step."""

import numpy as np

from skfc._threads import add

# Steps over which the speed of the decrement's growth is judged.
LOOK_BACK = 3


def newton_step(objective, hessian, gradient, precondition, *, share, steps, most=np.inf):
    """Minimise -<g, x> + <x, H x> / 2; returns x, half the Newton decrement, and steps.

    The decrement grows from below, at last geometrically: the steps end when what is
    still to come, by the speed of the last ones, is less than `share` of it. Where the
    penalty alone is enough to say so, they need not be any number.

    Parameters
    ----------
    hessian, precondition : functions of arrays (P, K); `precondition` approximates the
        inverse of the first
    gradient : (P, K)
    share : what may be still to come, as a share of the decrement
    most : what the decrement cannot exceed; steps end where it would, by rounding
    steps : the least and the most steps; a poor preconditioner hides directions that
        only a few more of them find

    Returns
    -------
    step : (P, K), about H⁻¹ g
    decrement : (n_problems,), <g, H⁻¹ g> / 2, which is F - F* up to third order
    n_steps : int
    """
    dot, spread = objective.dot, objective.spread
    r = gradient.copy()
    z = precondition(r)
    p, rz = z.copy(), dot(r, z)
    step = np.zeros_like(r)
    decrement, gains = np.zeros(objective.n_problems), []
    for k in range(1, steps[1] + 1):
        Hp = hessian(p)
        alpha = _ratio(rz, dot(p, Hp))
        if k > 1:
            alpha[decrement + 0.5 * alpha * rz > most] = 0.0
            if not alpha.any():
                break
        gains.append(0.5 * alpha * rz)
        decrement += gains[-1]
        scale = spread(alpha).astype(r.dtype)
        add(step, p, scale)
        if k >= steps[0] and (_to_come(gains) <= share * decrement).all():
            break
        add(r, Hp, -scale)
        z = precondition(r)
        if (objective.most_to_come(r, z) <= share * decrement).all():
            break
        rz, before = dot(r, z), rz
        p, z = z, p
        add(p, z, spread(_ratio(rz, before)).astype(r.dtype))
    return step, decrement, k


def _to_come(gains):
    """What a geometric series with these last terms has still to add.

    By the slower one of its speeds over a few steps and over half of them: gains come
    unevenly, and many small ones in a poor metric add up.
    """
    last = len(gains) - 1
    if last < 1:
        return np.where(gains[-1] > 0, np.inf, 0.0)
    q = 0.0
    for n in {min(last, LOOK_BACK), (last + 1) // 2}:
        q = np.maximum(q, np.minimum(_ratio(gains[-1], gains[-1 - n]), 1.0) ** (1 / n))
    return np.divide(gains[-1] * q, 1 - q, out=np.full_like(q, np.inf), where=q < 1)


def _ratio(a, b):
    """a / b, and 0 where b is not positive: rounding has taken over there."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
