"""Step lengths on a half line, from logits, for several problems at once."""

from skfc._array import host
from skfc._tuned import TUNED

# Rounding of a value, relatively, by the bytes of a logit.
ROUNDING = {4: 1e-6, 8: 1e-14}
# A bracket, relatively, in which rounding has hidden the minimum: no more steps are tried.
SHUT = 1e-12


def search(line, wolfe=None):
    """Steps (n_problems,) that meet the Wolfe conditions; 0 where none was found.

    F is convex along the line, so its slope brackets the minimum: a secant on the slope,
    kept within the bracket. Where values drown in rounding, the slope alone decides
    (Hager and Zhang 2005, the approximate Wolfe conditions).
    """
    f0, s0 = line.evaluation.value, line.slope
    wolfe = TUNED.wolfe if wolfe is None else wolfe
    rounding = ROUNDING[line.itemsize] * abs(f0)
    t, (f, s), low, high = host.ones(len(f0)), line.at_unit_step, None, None
    for _ in range(TUNED.most_steps):
        falls = f <= f0 + TUNED.armijo * t * s0
        falls |= (f <= f0 + rounding) & (s <= (2 * TUNED.armijo - 1) * s0)
        done = falls & (abs(s) <= -wolfe * s0)
        if done.all():
            return t
        if low is None:
            low, s_low, high = host.zeros(len(f0)), s0, host.full(len(f0), host.inf)
            s_high = high
        short = falls & (s < 0)
        up = short & ~done
        low, s_low = host.where(up, t, low), host.where(up, s, s_low)
        down = ~short & ~done
        high, s_high = host.where(down, t, high), host.where(down, s, s_high)
        # F is convex: it falls by no more than its slope promises on the bracket.
        left = host.multiply(high - low, -s_low, out=high + 0, where=s_low < 0)
        shut = ~done & ((high - low <= SHUT * low) | (left <= TUNED.accuracy * rounding))
        open_ = host.flatnonzero(~(done | shut))
        t, f, s = host.where(shut, low, t), host.array(f), host.array(s)
        if not len(open_):
            return t
        t[open_] = _next(low, s_low, high, s_high, s0)[open_]
        f[open_], s[open_] = line.at(t[open_], open_)
    t[open_] = host.where(low[open_] > 0, low[open_], 0.0)
    return t


def _next(low, s_low, high, s_high, s0):
    """A secant step on the slope, inside the bracket or beyond its open end."""
    with host.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = s_low / (s_low - s_high)
        share = host.clip(host.where(host.isfinite(s_high) & (s_high > 0), share, 0.1), 0.05, 0.9)
        inside = low + share * (high - low)
        beyond = low * host.clip(s0 / (s0 - s_low), 2.0, 10.0)
    return host.where(host.isinf(high), beyond, inside)
