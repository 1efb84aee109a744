r"""How far the minimum is at most, by the probabilities that a Newton step leads to.

Any probabilities q of the rows give a lower bound of the minimum (Fenchel duality). With G the
gradient of the loss that they would have, and p the probabilities at theta,

    F - F* <= mean_i m_i KL(q_i | p_i) + R*(∇R(W) + G),        G = X̃ᵀ m (q - y) / s

where q = p is the bound by the gradient alone. A Newton step promises q = p (1 + v - <p, v>), v
what it does to the logits: R* is then that of the step, and the sum about half the decrement.
Where a q is negative, zero takes its place.
"""

from skfc import _gap_blockwise
from skfc._array import cast, host, to_numpy
from skfc._newton_bound import newton_bound
from skfc._optimality import slack_of_intercepts
from skfc._tuned import TUNED


def bound_of_step(iterate, wanted, final):
    """An upper bound of F - F* (1,), from the exact Newton step of an iterate.

    Where the first is not enough, the second is tried if it is the `final` one.
    """
    newton, whole, evaluation = iterate.newton, iterate.whole, iterate.evaluation
    bound = dual_bound(iterate.objective, evaluation, -newton.step, whole.solve, wanted)
    if (bound <= wanted).all() or not final:
        return bound
    other = newton_bound(newton, whole, iterate.objective, evaluation, wanted)
    return host.minimum(bound, other)


def dual_bound(objective, evaluation, step, solve, wanted):
    """A proven upper bound of F - F*, (n_problems,), infinite without a penalty.

    Where probabilities were set to zero, the step is corrected for what they leave over, as long
    as that pays.

    Parameters
    ----------
    step : (P, K), about the one to the minimum
    solve : an approximate inverse of the Hessian
    wanted : (n_problems,), a bound that is enough
    """
    best = before = host.full(objective.n_problems, host.inf)
    if not objective.penalty.strict.all():
        return best
    for _ in range(TUNED.look_back):
        sums = objective.rows.sum(_gap_blockwise.dual_point, step, evaluation.state)
        divergence, left = to_numpy(sums.values[0]), sums.gradient
        gradient = left + 0
        objective.penalty.add_gradient(gradient, evaluation.theta)
        rest = objective.penalty.conjugate(gradient) + slack_of_intercepts(objective, gradient)
        slow = (rest > TUNED.smooth_share * before).any()
        bound = divergence + rest
        before, best = rest, host.where(bound < best, bound, best)
        # A correction takes a pass, and leaves a hundredth at best.
        hopeless = not (divergence + TUNED.accuracy * rest <= wanted).all()
        if slow or hopeless or (best <= wanted).all():
            break
        objective.penalty.add_gradient(left, evaluation.theta + cast(step, evaluation.theta.dtype))
        step = step - cast(solve(left), step.dtype)
    return best
