"""Preconditioned conjugate gradients on a Hessian, for problems in lock-step."""

from dataclasses import dataclass, field

from skfc._array import Array, host, namespace
from skfc._tuned import TUNED

# Step lengths below show that M is not the Hessian of these rows: with it they are about one.
BLIND = 1e-8
# Step lengths above are along directions whose curvature is rounding of X, in double precision.
FLAT = 1e9


@dataclass(eq=False)
class NewtonStep:
    """The outcome of conjugate gradients.

    Attributes
    ----------
    step : (P, K), about H⁻¹ g
    decrement : (n_problems,), <g, H⁻¹ g> / 2, which is F - F* up to third order
    n_products : int, products with the Hessian
    broken : (n_problems,), whether rounding ended them: the decrement is then unknown
    limited : (n_problems,), whether the decrement would have gone beyond its limit
    alphas, betas : step lengths, from which :func:`condition` follows
    is_exact : whether it is that of the inverse of the Hessian of all rows
    """

    step: Array
    decrement: Array
    n_products: int
    broken: Array
    limited: Array
    alphas: list = field(repr=False)
    betas: list = field(repr=False)
    is_exact: bool = False

    def is_enough(self, least):
        """Whether it took `least` products, and those that the condition number requires."""
        k = self.n_products
        enough = steps_for(condition(self.alphas, self.betas))
        return not self.limited.any() and k >= max(least, enough)

    @property
    def is_blind(self):
        """Whether the Hessian has so much more curvature than M that nothing else was seen."""
        least = min((float(host.min(alpha)) for alpha in self.alphas), default=1.0)
        return bool((self.decrement > 0).any()) and least < BLIND


def newton_step(
    objective, hessian, gradient, precondition, *, share, least, most, limit=None,
    by_condition=False, below=None,
):  # fmt: skip
    """Minimise -<g, x> + <x, H x> / 2.

    The decrement grows from below, at last geometrically. The steps end when the rest of the
    series, extrapolated from its last terms, is less than `share` of the decrement. They end
    before `least` where the penalty alone proves this.

    Parameters
    ----------
    hessian, precondition : functions of arrays (P, K); `precondition` approximates the
        inverse of the first
    gradient : (P, K)
    share : the rest of the series that may be left out, as a share of the decrement
    least, most : the least and the most products; a poor preconditioner hides directions
        that only more of them find
    limit : (n_problems,), what the decrement cannot exceed; steps end where it would
    by_condition : whether to take at least :func:`steps_for` the condition number of the
        preconditioned Hessian, as the steps show it
    below : (n_problems,), or None; steps end where the penalty alone proves that the decrement
        cannot exceed it

    Returns
    -------
    NewtonStep
    """
    limit = host.inf if limit is None else limit
    below = -host.inf if below is None else below
    dot = objective.dot
    r = gradient + 0
    z = precondition(r)
    p, rz = z + 0, dot(r, z)
    step = namespace(r).zeros_like(r)
    decrement, gains = host.zeros(objective.n_problems), []
    alphas, betas, limited = [], [], host.zeros(objective.n_problems, dtype=bool)
    broken = ~(rz > 0) & (dot(r, r) > 0)
    for k in range(1, most + 1):
        Hp = hessian(p)
        pHp = dot(p, Hp)
        broken |= ~(pHp > 0) & (rz > 0)
        alpha = host.maximum(ratio(rz, pHp), 0.0)
        if k > 1:
            alpha[(alpha > FLAT) & ~objective.penalty.strict] = 0.0
            beyond = decrement + 0.5 * alpha * rz > limit
            limited |= beyond
            alpha[beyond] = 0.0
            if not alpha.any():
                break
        gains.append(0.5 * alpha * rz)
        decrement += gains[-1]
        objective.add(step, p, alpha)
        alphas.append(alpha)
        little = k >= least and (still_to_come(gains) <= share * decrement).all()
        if little and not (by_condition and k < steps_for(condition(alphas, betas))):
            break
        objective.add(r, Hp, -alpha)
        z = precondition(r)
        rest = most_to_come(objective, r, z)
        if (rest <= share * decrement).all() or (decrement + rest <= below).all():
            break
        rz, before = dot(r, z), rz
        betas.append(ratio(rz, before))
        p, z = z, p
        objective.add(p, z, betas[-1])
    return NewtonStep(step, decrement, k, broken & ~(decrement > 0), limited, alphas, betas)


def direct_step(objective, gradient, solve):
    """The Newton step of a Hessian whose inverse is at hand."""
    step = solve(gradient)
    decrement = 0.5 * objective.dot(step, gradient)
    limited = broken = host.zeros(objective.n_problems, dtype=bool)
    if not (decrement > 0).all():  # where the gradient is not zero
        broken = ~(decrement > 0) & (objective.dot(gradient, gradient) > 0)
    return NewtonStep(step, decrement, 0, broken, limited, [], [], is_exact=True)


def condition(alphas, betas):
    """The largest ratio of Ritz values of the preconditioned Hessian, over the problems.

    Conjugate gradients are Lanczos' method: their step lengths give its tridiagonal matrix.
    """
    largest, alphas = 1.0, host.array(alphas)
    betas = betas[: len(alphas) - 1]
    betas = host.stack(betas) if betas else host.zeros((0, alphas.shape[1]))
    for a, b in zip(alphas.T, betas.T, strict=True):
        if not (a > 0).all():
            continue
        diagonal = 1 / a
        diagonal[1:] += b / a[:-1]
        beside = host.sqrt(b) / a[:-1]
        T = host.diag(diagonal) + host.diag(beside, 1) + host.diag(beside, -1)
        if host.isfinite(T).all():
            values = host.linalg.eigvalsh(T)
            # One is among the eigenvalues of a preconditioner that is right where it matters.
            least = max(min(values[0], 1.0), 1e-16 * values[-1])
            largest = max(largest, float(max(values[-1], 1.0) / least))
    return largest


def steps_for(condition):
    """The conjugate-gradient steps that reduce the error to a share, for a condition number."""
    return TUNED.steps_per_root * condition**0.5


def most_to_come(objective, residual, preconditioned):
    """A bound of <r, H⁻¹ r> / 2, (n_problems,), since H is at least the penalty's Hessian.

    That has no part for the intercepts; theirs is estimated with the preconditioner.
    """
    N = objective.rows.shape[1]
    b = slice(N, residual.shape[0])
    of_intercepts = host.abs(objective.dot(residual[b, :], preconditioned[b, :]))
    return objective.penalty.conjugate(residual) + of_intercepts


def still_to_come(gains):
    """The rest of a series whose last terms are `gains`, extrapolated geometrically.

    The ratio is the larger of those over `look_back` terms and over half of the terms: gains
    are uneven, and under a poor preconditioner many small ones add up.
    """
    last = len(gains) - 1
    if last < 1:
        return host.where(gains[-1] > 0, host.inf, 0.0)
    q = 0.0
    for n in {min(last, TUNED.look_back), (last + 1) // 2}:
        q = host.maximum(q, host.minimum(ratio(gains[-1], gains[-1 - n]), 1.0) ** (1 / n))
    return host.divide(gains[-1] * q, 1 - q, out=host.full_like(q, host.inf), where=q < 1)


def ratio(a, b):
    """a / b, and 0 where b is not positive by rounding."""
    return host.divide(a, b, out=host.zeros_like(a), where=b > 0)
