"""Step lengths on a ray, from logits, for several problems at once."""

import numpy as np

ARMIJO = 1e-4
WOLFE = 0.9
MAX_TRIALS = 30
ROUNDING = {4: 1e-6, 8: 1e-14}  # of a value, by the bytes of a logit


def search(ray, wolfe=WOLFE):
    """Steps (n_problems,) that meet the Wolfe conditions; 0 where none was found.

    F is convex along the ray, so its slope brackets the minimum: a secant on the slope,
    kept within the bracket. Where values drown in rounding, the slope alone decides
    (Hager and Zhang 2005, the approximate Wolfe conditions).
    """
    f0, s0 = ray.point.value, ray.slope
    eps = ROUNDING[ray.logits.itemsize]
    t = np.ones_like(f0)
    f, s = (np.array(v) for v in ray.one)
    low, s_low = np.zeros_like(f0), s0.copy()
    high, s_high = np.full_like(f0, np.inf), np.full_like(f0, np.inf)
    for _ in range(MAX_TRIALS):
        with np.errstate(invalid="ignore"):
            falls = f <= f0 + ARMIJO * t * s0
            falls |= (f <= f0 + eps * np.abs(f0)) & (s <= (2 * ARMIJO - 1) * s0)
            done = falls & (np.abs(s) <= -wolfe * s0)
            short = falls & (s < 0)
        open_ = np.flatnonzero(~done)
        if not len(open_):
            return t
        up = short & ~done
        low, s_low = np.where(up, t, low), np.where(up, s, s_low)
        down = ~short & ~done
        high, s_high = np.where(down, t, high), np.where(down, s, s_high)
        t = t.copy()
        t[open_] = _next(low, s_low, high, s_high, s0)[open_]
        f[open_], s[open_] = ray.evaluate(t[open_], open_)
    t[open_] = np.where(low[open_] > 0, low[open_], 0.0)
    return t


def _next(low, s_low, high, s_high, s0):
    """A secant step on the slope, inside the bracket or beyond its open end."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = s_low / (s_low - s_high)
        share = np.clip(np.where(np.isfinite(s_high) & (s_high > 0), share, 0.1), 0.05, 0.9)
        inside = low + share * (high - low)
        beyond = low * np.clip(s0 / (s0 - s_low), 2.0, 10.0)
    return np.where(np.isinf(high), beyond, inside)
