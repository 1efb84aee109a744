"""Preconditioned conjugate gradients on a Hessian, for problems in lock-step."""

import numpy as np


def newton_step(objective, hessian, gradient, precondition, *, share, max_steps):
    """Minimise -<g, x> + <x, H x> / 2; returns x and half the Newton decrement.

    Stops when a step adds less than `share` of the decrement in every problem: the
    steps approach it from below, and what is still missing is about as small.

    Parameters
    ----------
    hessian, precondition : functions of arrays (P, K); `precondition` approximates the
        inverse of the first
    gradient : (P, K)

    Returns
    -------
    step : (P, K), about H⁻¹ g
    decrement : (n_problems,), <g, H⁻¹ g> / 2, which is F - F* up to third order
    """
    dot, spread = objective.dot, objective.spread
    r = gradient.copy()
    z = precondition(r)
    p, rz = z.copy(), dot(r, z)
    step = np.zeros_like(r)
    decrement = np.zeros(objective.n_problems)
    for _ in range(max_steps):
        Hp = hessian(p)
        alpha = _ratio(rz, dot(p, Hp))
        gain = 0.5 * alpha * rz
        decrement += gain
        scale = spread(alpha).astype(r.dtype)
        np.multiply(p, scale, out=z)
        step += z
        if (gain <= share * decrement).all():
            break
        Hp *= scale
        r -= Hp
        z = precondition(r)
        rz, before = dot(r, z), rz
        p *= spread(_ratio(rz, before)).astype(r.dtype)
        p += z
    return step, decrement


def _ratio(a, b):
    """a / b, and 0 where b is not positive: rounding has taken over there."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
