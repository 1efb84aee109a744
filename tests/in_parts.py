"""Rows in parts, as those of a Dask collection: what a cluster asks of the package, without one.

Calls, and what they answer, go through pickle, and states are lost now and then, as on workers.
"""

import pickle
from itertools import pairwise

from skfc._rows import DaskRows, Here, Layout, Part, _calls


class Elsewhere(Here):
    """Parts that are reached by pickle alone, with their states lost in every call `every`."""

    def __init__(self, parts, every):
        super().__init__(parts)
        self.every, self.calls, self.store = every, 0, _calls.Store(rests=True)

    def _send(self, call, numbers, dropped, again):
        self.calls += 1
        if self.calls % self.every == 0:
            self.store.held.clear()
            self.store.rests.clear()
        call = pickle.loads(pickle.dumps(call))
        found = [_calls.attempt(None, number, self.store, call) for number in numbers]
        found = _calls.collected(call, found)  # without X, where that can be
        if left := _calls.unanswered(numbers, found):
            found = found + super()._send(call, left, dropped, again)
        return pickle.loads(pickle.dumps(found))


def in_parts(X, target, weight, n_classes, *, n_parts=3, every=3):
    """:class:`DaskRows` with more rows in the later parts."""
    n, total = X.shape[0], n_parts * (n_parts + 1)
    edges = [n * k * (k + 1) // total for k in range(n_parts + 1)]
    cuts = [slice(*pair) for pair in pairwise(edges)]
    parts = [Part(X[cut], target[..., cut], weight[:, cut]) for cut in cuts]
    first = {number: cut.start for number, cut in enumerate(cuts)}
    values = {"n_values": X.nnz, "sparse": True} if hasattr(X, "nnz") else {}
    layout = Layout(n_classes, X.dtype, n, first)
    cluster = Elsewhere(parts, every)
    return DaskRows.of(cluster, layout, X.shape, n_problems=len(weight), **values)
