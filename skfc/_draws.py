"""Functions of one block of rows that draw samples; see :mod:`skfc._blockwise` for their form."""

from skfc._array import cast, namespace, permute


def row_curvature(block, _, logits, *unused):
    """The trace of the curvature m (1 - |p|²) of every row, summed over problems."""
    p = block.kernel.probabilities(block.stack(block.kernel.scratch(logits)))
    xp = namespace(p)
    trace = xp.maximum(1.0 - block.kernel.squares(p), block.like(1e-12))
    return (), None, (xp.sum(trace * block.weight, axis=0),)


def row_weight(block, _, *, scale, least):
    """The mean weight of every row over problems, times `scale`, and `least` more."""
    weight = namespace(block.weight).sum(block.weight, axis=0) / block.weight.shape[0]
    return (), None, (scale * weight + least,)


def chance(block, _, a, b):
    """The chance of every row to be drawn, a * b of two states (n_rows,), and its sum."""
    product = cast(a * b, namespace(a).float64)[None, :]
    return (namespace(product).sum(product, axis=1),), None, (product,)


def chance_by_leverage(block, products, weights, *, n, scale):
    """The chance of every row, weight times leverage, for every row of `weights` (K, n_rows).

    The leverage is `scale` times the sum of squares over q of products (q * n, n_rows), with
    n = 1 or K. It is cut at one: a row that the blocks have not seen can exceed that, and is
    taken for certain anyway.
    """
    xp = namespace(products)
    x = xp.reshape(products, (-1, n, products.shape[-1]))
    score = weights * block.kernel.squares(permute(x, (1, 0, 2))) * block.like(scale)
    score = xp.minimum(score, block.like(1.0))
    return (xp.sum(cast(score, xp.float64), axis=1),), None, (score, weights)


def expected(block, _, chance, *state, factor):
    """How many rows `draw` is expected to draw, (M,), and its derivative by `factor`, (M,)."""
    xp = namespace(chance)
    p = chance * cast(xp.asarray(factor), chance.dtype)[:, None]
    certain = p >= 1
    count = xp.sum(cast(xp.where(certain, xp.ones_like(p), p), xp.float64), axis=1)
    slope = xp.sum(cast(xp.where(certain, xp.zeros_like(p), chance), xp.float64), axis=1)
    return (count, slope), None, (chance, *state)


def draw(block, _, chance, *state, factor, turn):
    """A Poisson draw: the importance of every row takes the place of its chance (M, n_rows).

    A row is drawn with the probability chance * `factor` (M,), at most one; its importance
    is the inverse of that, and zero if it is not drawn. All M share a draw. The same rows for
    the same data and `turn`: a fit is deterministic.
    """
    xp = namespace(chance)
    p = xp.minimum(chance * cast(xp.asarray(factor), chance.dtype)[:, None], xp.ones_like(chance))
    drawn = block.uniform(turn)[None, :] < p
    importance = xp.where(drawn, 1.0 / xp.where(drawn, p, xp.ones_like(p)), xp.zeros_like(p))
    return (), None, (importance, *state)


def take_all(block, *unused):
    """The importance of every row in a sample of all of them, (1, n_rows): one."""
    return (), None, (0.0 * block.weight[:1, :] + 1.0,)


def times_row_weight(block, _, importance):
    """Importance times the mean weight of every row over problems, (1, n_rows)."""
    _, _, (weight,) = row_weight(block, None, scale=1.0, least=0.0)
    return (), None, (importance * weight,)


def times_row_curvature(block, _, importance, *state):
    """Importance times the trace of the curvature of every row, and times its weight; their sums.

    Both are states (1, n_rows), and their sums (1,).
    """
    _, _, (trace,) = row_curvature(block, None, *state)
    products = importance * trace, *times_row_weight(block, None, importance)[2]
    sums = (namespace(p).sum(cast(p, namespace(p).float64), axis=1) for p in products)
    return tuple(sums), None, products


def blend(block, _, curvature, weight, *, scale, share):
    """The mean (1, n_rows) of `scale` times one state, and of another that has a `share`."""
    return (), None, ((scale * curvature + share * weight) / (1 + share),)


def times(block, _, a, b):
    """The product of two states."""
    return (), None, (a * b,)
