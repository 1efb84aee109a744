"""Rows that live in other processes: what a cluster asks of the package, without a cluster.

Functions and weights go to the processes by pickle; sums, and samples of rows, come back.
States stay where they are: here is a handle, which cannot be read.
"""

from dataclasses import dataclass, replace
from functools import reduce
from itertools import count, pairwise
from multiprocessing import get_context
from operator import add
from weakref import finalize

import numpy as np

from skfc._array import host
from skfc._moments import Moments
from skfc._rows import DenseRows, Sums, Work

# -- in every process: objects by their keys, and the functions that are sent to it ---------------

KEPT = {}


def look_up(key):
    """What a handle becomes when it arrives."""
    return KEPT[key]


def serve(connection):
    """Run what comes: a function gives an answer and the objects that stay."""
    while (message := connection.recv()) is not None:
        function, arguments, keys, dropped = message
        try:
            with np.errstate(all="ignore"):
                answer, *kept = function(*arguments)
            KEPT.update(zip(keys, kept, strict=True))
            connection.send((answer, None))
        except Exception as error:
            connection.send((None, error))
        del message, arguments
        for key in dropped:
            KEPT.pop(key, None)


def build(X, target, weight, first, n_classes, n_total):
    """Rows in two blocks."""
    n = len(X)
    blocks = [slice(0, n // 3), slice(n // 3, n)]
    rows = DenseRows(
        X, target, weight, n_classes=n_classes, n_total=n_total, share=n / n_total, first=first,
        blocks=blocks,
    )  # fmt: skip
    return None, rows


def ask(rows, method, *arguments):
    """The answer of a method."""
    return (getattr(rows, method)(*arguments),)


def keep(rows, method, *arguments):
    """What a method gives stays."""
    return None, getattr(rows, method)(*arguments)


def sum_blocks(rows, function, theta, state, options):
    """Values, gradient and work of a sum; the state stays."""
    before = replace(rows.work)
    sums = rows.sum(function, theta, state, **options)
    work = rows.work.passes - before.passes, rows.work.steps - before.steps
    return (sums.values, sums.gradient, *work), sums.state


def cut(rows, index, *states):
    """Rows and states of some problems."""
    return None, *rows.problems(index, *states)


def count_rows(rows):
    """How many there are."""
    return (rows.shape[0],)


def take(index, rows, n_total):
    """Some rows; their sums are means over `n_total`."""
    return None, rows.taken(index, n_total)


def select(rows, importance, dtype):
    """The numbers of a sample; its places stay."""
    sample = rows.select(importance, dtype)
    return (sample.rows.X, sample.rows.target, sample.rows.weight), sample


def carry(sample, state):
    """Logits of the rows of a sample."""
    return (np.concatenate([logits for (logits,) in sample.carry(state)], axis=-1),)


# -- on this side -----------------------------------------------------------------------------


class Cluster:
    """Processes, each with a part of the rows."""

    def __init__(self, n_processes):
        context = get_context("spawn")
        self.connections, self.processes, self.dropped, self.keys = [], [], [], count()
        for _ in range(n_processes):
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there,), daemon=True)
            process.start()
            there.close()
            self.connections.append(here)
            self.processes.append(process)

    def run(self, function, *arguments, each=None, n_kept=0):
        """Answers of a function in every process, and handles of what it keeps there."""
        each = [()] * len(self.connections) if each is None else each
        kept = [Handle(self) for _ in range(n_kept)]
        dropped, self.dropped[:] = list(self.dropped), []
        for connection, own in zip(self.connections, each, strict=True):
            connection.send((function, (*own, *arguments), [h.key for h in kept], dropped))
        answers = [connection.recv() for connection in self.connections]
        for _, error in answers:
            if error is not None:
                raise error
        return [answer for answer, _ in answers], *kept

    def close(self):
        """End all processes."""
        for connection, process in zip(self.connections, self.processes, strict=True):
            connection.send(None)
            process.join()
            connection.close()


class Handle:
    """An object in every process of a cluster. Here it can be sent back, and nothing else."""

    def __init__(self, cluster):
        self.key = next(cluster.keys)
        finalize(self, cluster.dropped.append, self.key)

    def __reduce__(self):
        return look_up, (self.key,)

    def _refuse(self, *_, **__):
        raise TypeError("a state is not on this side")

    __getitem__ = __iter__ = __len__ = __array__ = __float__ = __bool__ = _refuse


class RemoteRows:
    """Rows in the processes of a cluster; see :class:`skfc._rows.LocalRows`."""

    on_pool = sparse = False
    xp, parameter_dtype = np, np.float64

    def __init__(
        self, cluster, handle, shape, dtype, n_classes, n_problems, frame=None, work=None
    ):
        self.cluster, self.handle = cluster, handle
        self.shape, self.dtype, self.n_total = shape, dtype, shape[0]
        self.n_classes, self.n_problems, self.frame = n_classes, n_problems, frame
        self.work = Work() if work is None else work

    @classmethod
    def of(cls, cluster, X, target, weight, n_classes):
        """Rows dealt out to the processes of a cluster, more to the later ones."""
        m = len(cluster.connections)
        edges = [len(X) * k * (k + 1) // (m * (m + 1)) for k in range(m + 1)]
        parts = [(X[a:b], target[..., a:b], weight[:, a:b], a) for a, b in pairwise(edges)]
        _, handle = cluster.run(build, n_classes, len(X), each=parts, n_kept=1)
        return cls(cluster, handle, X.shape, X.dtype, n_classes, len(weight))

    @property
    def n_values(self):
        return self.shape[0] * self.shape[1]

    @property
    def n_columns(self):
        return self.n_problems * self.n_classes

    @property
    def n_parameters(self):
        return self.frame.n_parameters

    def _with(self, handle, **changes):
        kept = {"n_problems": self.n_problems, "frame": self.frame, "work": self.work}
        return RemoteRows(
            self.cluster, handle, self.shape, self.dtype, self.n_classes, **(kept | changes)
        )

    def _ask(self, method, *arguments):
        return self.cluster.run(ask, self.handle, method, *arguments)[0]

    def _keep(self, method, *arguments):
        return self.cluster.run(keep, self.handle, method, *arguments, n_kept=1)[1]

    def sum(self, function, theta=None, state=None, *, power=1, count=True):
        options = {"power": power, "count": count}
        answers, kept = self.cluster.run(
            sum_blocks, self.handle, function, theta, state, options, n_kept=1
        )
        values, gradients, passes, steps = zip(*answers, strict=True)
        self.work.passes += sum(passes)
        self.work.steps += max(steps)
        values = tuple(sum(parts) for parts in zip(*values, strict=True))
        return Sums(values, None if gradients[0] is None else sum(gradients), kept)

    def gram(self, weights, *, pairs=False):
        assert not pairs, "those of a sample only"
        return sum(self._ask("gram", weights))

    def moments(self):
        return reduce(Moments.__add__, self._ask("moments"))

    def typical(self, moments):
        return None  # a cluster has no cheap rows to look at

    def loss_of(self, coef, intercept):
        return reduce(add, self._ask("loss_of", coef, intercept))

    def in_frame(self, frame):
        return self._with(self._keep("in_frame", frame), frame=frame)

    def with_prominence(self, state):
        return self._keep("with_prominence", state)

    def problems(self, index, *states):
        n_kept = 1 + len(states)
        _, rows, *cut_states = self.cluster.run(cut, self.handle, index, *states, n_kept=n_kept)
        return self._with(rows, n_problems=len(index)), *cut_states

    def batches(self, size, rng):
        n = self.shape[0]
        edges = np.cumsum([0, *self.cluster.run(count_rows, self.handle)[0]])
        for index in np.array_split(rng.permutation(n), max(1, round(n / size))):
            where = np.sort(index)
            each = [(where[(a <= where) & (where < b)] - a,) for a, b in pairwise(edges)]
            _, handle = self.cluster.run(take, self.handle, len(index), each=each, n_kept=1)
            part = self._with(handle)
            part.shape, part.n_total = (len(index), self.shape[1]), len(index)
            yield part

    def single(self):
        return None

    def select(self, importance, dtype):
        parts, sample = self.cluster.run(select, self.handle, importance, dtype, n_kept=1)
        X, target, weight = (
            host.concatenate(arrays, axis=axis)
            for arrays, axis in zip(zip(*parts, strict=True), (0, -1, -1), strict=True)
        )
        rows = DenseRows(
            X, target, weight, n_classes=self.n_classes, frame=self.frame, standard=True,
            n_total=self.n_total, share=len(X) / self.n_total, work=self.work,
        )  # fmt: skip
        return RemoteSample(self.cluster, rows, sample)


@dataclass(frozen=True)
class RemoteSample:
    """Rows of a sample, which are here, and their places, which are not."""

    cluster: Cluster
    rows: DenseRows
    handle: Handle

    def problems(self, index):
        return replace(self, rows=self.rows.problems(index)[0])

    def carry(self, state):
        parts, *_ = self.cluster.run(carry, self.handle, state)
        logits = host.concatenate(parts, axis=-1)
        return [(logits[..., block],) for block in self.rows.blocks]
