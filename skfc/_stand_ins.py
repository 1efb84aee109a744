r"""Rows of a stream that stand for others, which left before later classes came.

With the classes known when a row left, its loss is

    log Σ_all exp z - z_y  =  (log Σ_known exp z - z_y)  +  log (Σ_all exp z / Σ_known exp z).

Its expansion gives the first part. For the second, rows of its class that are held stand for
it. There, -log Σ_known exp z is replaced by its tangent at theta, an upper bound: a row of
target y and weight m which stands for rows of weight u has the target
(m y + Σ u p_known) / (m + Σ u) and the weight m + Σ u. Steps on one such upper bound after the
other lower the sum itself (Hunter and Lange, A tutorial on MM algorithms, 2004).
"""

from dataclasses import replace

import numpy as np

from skfc._window import one_hot


def with_stand_ins(chunk, active, rank, left, theta):
    """The rows of a chunk, with targets and weights of those that they stand for.

    Parameters
    ----------
    chunk : Chunk
    active : (n_active,) indices of the classes with weight
    rank : (n_active,) their places in the order in which they came
    left : {number of active classes: (n_classes,) weights of rows that left then, by class}
    theta : (P, n_active), where the bound is exact
    """
    known = [count for count in left if count < len(active)]
    if not known:
        return chunk
    n_classes = len(left[known[0]])
    held = np.bincount(chunk.classes, weights=chunk.weight, minlength=n_classes)
    share = chunk.weight / held[chunk.classes]
    order = np.argsort(rank)
    Z = (chunk.rows @ theta).T[order]
    log_weight = np.full(Z.shape, -np.inf)  # of rows that left with so many classes, by stand-in
    with np.errstate(divide="ignore"):
        for count in known:
            gone = left[count]
            others = gone[held == 0].sum() / held.sum()  # of classes of which no row is held
            log_weight[count - 1] = np.log(gone[chunk.classes] * share + others * chunk.weight)
    of_known = log_weight - np.logaddexp.accumulate(Z, axis=0)
    extra = np.empty_like(Z)
    extra[order] = np.exp(Z + np.logaddexp.accumulate(of_known[::-1], axis=0)[::-1])
    weight = chunk.weight + extra.sum(axis=0)
    target = np.zeros((n_classes, len(chunk)))
    target[active] = chunk.weight * one_hot(chunk.target_of(active), len(active)) + extra
    return replace(chunk, target=target / weight, weight=weight)
