"""Operations on arrays of any library, and how input becomes one.

Where NumPy has a faster or a more exact way than the array API standard, the choice between
the two is made here, so that everything above has one copy.
"""

import ctypes
from contextlib import contextmanager
from ctypes import byref, c_int
from functools import cache
from mmap import mmap

import numpy as np
from scipy.linalg import cython_lapack, lapack

from skfc._namespaces import (
    Array,
    ReadAs,
    all_beside,
    as_like,
    beside,
    can_move,
    check_place,
    free_memory,
    is_array,
    is_dispatched,
    is_distributed,
    is_half,
    is_numpy,
    is_on_host,
    moved,
    namespace,
    place,
    refuse_distributed,
    short_rounding,
    solve_triangular,
    to_numpy,
    wait_for,
    writes_at,
)
from skfc._random import generator
from skfc._tuned import TUNED

__all__ = [
    "Array", "ReadAs", "all_beside", "as_like", "beside", "can_move", "check_place", "is_array",
    "is_dispatched", "is_distributed", "is_numpy", "is_on_host", "moved", "namespace", "place",
    "refuse_distributed", "short_rounding", "to_numpy", "wait_for",
]  # fmt: skip


# One number per problem (values, slopes, steps) lives on the host whatever X is; this is the
# namespace of such arrays.
host = np

# Arrays of the size of its logits that a function of a block makes, those it is given included.
TEMPORARIES = 8


def cast(array, dtype):
    """`array` in `dtype`, itself where it has that type already."""
    if array.dtype == dtype:
        return array
    if is_numpy(array):
        return array.astype(dtype)
    return namespace(array).astype(array, dtype)


def is_memory_map(array):
    """Whether an array, or what it is a view of, is a memory map."""
    while array is not None and not isinstance(array, np.memmap | mmap):
        array = getattr(array, "base", None)
    return array is not None


def itemsize(array):
    """Bytes of a number in products with a floating-point array, or a sparse one: 4 or 8."""
    if isinstance(array.dtype, np.dtype):
        return max(4, array.dtype.itemsize)
    return 4 if array.dtype == namespace(array).float32 or is_half(array) else 8


def working_type(array):
    """The type of products with a floating-point array: its own, or float32 for shorter ones."""
    return namespace(array).float32 if is_half(array) else array.dtype


def numpy_type(array):
    """The type of NumPy for products with a floating-point array, or a sparse one."""
    return np.dtype(f"f{itemsize(array)}")


def rows_that_fit(array, n_numbers):
    """How many rows with `n_numbers` each a block may have on a device; None on the host.

    What a function of a block holds at a time then takes an eighth of the memory that is free.
    A power of two: a little more or less of that memory changes nothing.
    """
    room = free_memory(array)
    if room is None:
        return None
    rows = max(1, room // (8 * TEMPORARIES * max(n_numbers, 1) * itemsize(array)))
    return 2 ** (int(rows).bit_length() - 1)


def epsilon(array):
    """The machine epsilon of products with a floating-point array."""
    return max(short_rounding(array), 2.0**-23 if itemsize(array) == 4 else 2.0**-52)


def exp(array):
    """The exponentials of `array`, in its place where that is NumPy's."""
    xp = namespace(array)
    return np.exp(array, out=array) if xp is np else xp.exp(array)


# The most numbers of a product for which `numpy.matmul` keeps the interpreter's lock.
LOCKED = 500


def product(a, b):
    """a @ b for matrices, or a vector and a matrix.

    NumPy's `matmul` keeps the interpreter's lock where the product has few numbers, `dot` never;
    but it copies what is not contiguous, such as some rows in Fortran order.
    """
    xp = namespace(a)
    if xp is not np:
        return xp.matmul(a, b)
    few = (len(a) if a.ndim > 1 else 1) * b.shape[-1] <= LOCKED
    return np.dot(a, b) if few or (a.flags.forc and b.flags.forc) else np.matmul(a, b)


def inner(a, b):
    """The inner product of two arrays, a float."""
    xp = namespace(a)
    return float(np.vdot(a, b)) if xp is np else float(xp.sum(a * b))


def outer(a, b):
    """The outer product of two vectors."""
    return a[:, None] * b[None, :]


def concatenate(arrays, axis=0):
    """Arrays put together along an axis."""
    xp = namespace(arrays[0])
    return np.concatenate(arrays, axis) if xp is np else xp.concat(arrays, axis=axis)


def add_to_diagonal(A, values):
    """A + diag(values) for a square A, in place where that is cheap."""
    xp = namespace(A)
    if xp is np:
        np.einsum("ii->i", A)[...] += values
        return A
    return A + xp.eye(A.shape[0], dtype=A.dtype) * values


def add_to_diagonals_of_blocks(A, values):
    """A square A plus diag(values[k, l]) in its blocks k, l, in place where that is cheap.

    The values are (T, T, P).
    """
    xp, (T, _, P) = namespace(A), values.shape
    if xp is np:
        np.einsum("kili->kli", A.reshape(T, P, T, P))[...] += values
        return A
    added = xp.eye(P, dtype=A.dtype)[None, :, None, :] * permute(values, (0, 2, 1))[..., None]
    return xp.reshape(xp.reshape(A, (T, P, T, P)) + added, A.shape)


def diagonal(A):
    """The diagonal of a square matrix, a copy."""
    xp = namespace(A)
    return A.diagonal().copy() if xp is np else xp.linalg.diagonal(A) + 0


def diagonals(A):
    """The diagonals (..., P) of square matrices (..., P, P), a copy."""
    xp = namespace(A)
    return np.einsum("...ii->...i", A).copy() if xp is np else xp.linalg.diagonal(A) + 0


def with_diagonals(A, d):
    """Square matrices (..., P, P) with the diagonals `d`, in place where that is cheap."""
    xp = namespace(A)
    if xp is np:
        np.einsum("...ii->...i", A)[...] = d
        return A
    eye = xp.eye(A.shape[-1], dtype=A.dtype)
    return A * (1 - eye) + eye * d[..., None, :]


def eigh(A):
    """Eigenvalues, ascending, and eigenvectors of symmetric matrices (..., P, P)."""
    with decomposition():
        values, vectors = namespace(A).linalg.eigh(A)
    return values, vectors


@contextmanager
def decomposition():
    """Around a decomposition: the error of any library where there is none is NumPy's."""
    try:
        yield
    except RuntimeError as error:  # torch's; NumPy's is no RuntimeError
        if not type(error).__name__.endswith("LinAlgError"):
            raise
        raise np.linalg.LinAlgError(str(error)) from error


def cholesky(A):
    """The lower Cholesky factor, or None where A is not positive definite to rounding."""
    xp = namespace(A)
    if xp is np and A.ndim == 2 and A.nbytes <= TUNED.small_block_bytes:
        factor = lapack.spotrf if A.itemsize == 4 else lapack.dpotrf
        U, failed = factor(A.T, lower=False, clean=True)  # no copies but one
        return None if failed or not np.isfinite(U.diagonal()).all() else U.T
    try:
        if xp is np:
            L = np.linalg.cholesky(A)
        else:
            with decomposition():
                L = xp.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        return None
    # What is not finite in a row makes its pivot so.
    return L if bool(xp.all(xp.isfinite(diagonals(L)))) else None


@cache
def lapack_routine(name):
    """A routine of SciPy's LAPACK that frees the interpreter's lock, which those of `lapack` keep.

    It takes pointers, eight of them.
    """
    capsule, api = cython_lapack.__pyx_capi__[name], ctypes.pythonapi
    signature = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    address = pointer(capsule, signature(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 8)(address)


def cholesky_solve(L, b):
    """(L Lᵀ)⁻¹ b for a vector or columns b."""
    xp = namespace(L)
    if xp is np and L.nbytes <= TUNED.small_block_bytes:  # too short to let other threads in
        solve = lapack.spotrs if L.itemsize == 4 else lapack.dpotrs
        return solve(L.T, b)[0]
    if xp is np:
        x = np.array(b.T, dtype=L.dtype, order="C")  # columns one after the other, as in Fortran
        n, n_columns, info = c_int(len(L)), c_int(x.size // max(len(L), 1)), c_int()
        L = np.ascontiguousarray(L)
        routine = lapack_routine("spotrs" if L.itemsize == 4 else "dpotrs")
        routine(b"U", byref(n), byref(n_columns), L.ctypes.data, byref(n), x.ctypes.data, byref(n),
                byref(info))  # fmt: skip
        return x.T
    columns = cast(b if b.ndim == 2 else b[:, None], L.dtype)
    with decomposition():
        x = solve_triangular(L, solve_triangular(L, columns), transposed=True)
    return x if b.ndim == 2 else x[:, 0]


def triangular_solve(L, b):
    """L⁻ᵀ b for a vector b: a random b then has the covariance (L Lᵀ)⁻¹."""
    xp = namespace(L)
    if xp is np:
        solve = lapack.strtrs if L.itemsize == 4 else lapack.dtrtrs
        return solve(L.T, b)[0]
    with decomposition():
        return solve_triangular(L, b[:, None], transposed=True)[:, 0]


def inverse_factor(L):
    """L⁻¹ for a lower triangular L."""
    with decomposition():
        return namespace(L).linalg.inv(L)


def subtract_at(array, index, values):
    """`array` (B, T, n) less `values` (B, n) at the places index_i, i of its last axes."""
    xp, (B, T, n) = namespace(array), array.shape
    if writes_at(array):  # in place
        xp.reshape(array, (B, T * n))[:, index * n + xp.arange(n, dtype=index.dtype)] -= values
        return array
    here = xp.arange(T, dtype=index.dtype)[:, None] == index[None, :]
    return xp.where(here[None, ...], array - values[:, None, :], array)


def at_most(array, limit):
    """The smaller of an array and a number."""
    xp = namespace(array)
    return xp.minimum(array, xp.asarray(limit, dtype=array.dtype))


def take(array, index, axis=0):
    """The entries `index` (host integers) along an axis."""
    xp = namespace(array)
    if xp is np and not array.flags.c_contiguous:  # `take` would copy all of it first
        return array[(slice(None),) * (axis % array.ndim) + (index,)]
    if xp is np:
        return array.take(index, axis=axis)
    if isinstance(array, ReadAs):
        return array.take(index, axis)
    return xp.take(array, xp.asarray(index) if is_numpy(index) else index, axis=axis)


def nonzero(array):
    """Where an array is not zero, indices of the flattened array, of its library."""
    if is_numpy(array):
        return np.flatnonzero(array)
    xp = namespace(array)
    return xp.nonzero(xp.reshape(array, (-1,)))[0]


def random_normal(shape, like):
    """Standard normal numbers of a fixed seed, in the library and type of `like`."""
    numbers = generator().standard_normal(shape)
    if isinstance(like, np.ndarray):
        return numbers.astype(like.dtype)
    xp = namespace(like)
    return xp.asarray(numbers, dtype=like.dtype)


def reshape(array, shape):
    """`array` in another shape."""
    xp = namespace(array)
    return array.reshape(shape) if xp is np else xp.reshape(array, shape)


def permute(array, axes):
    """`array` with its axes in another order."""
    xp = namespace(array)
    return array.transpose(axes) if xp is np else xp.permute_dims(array, axes)


def tile(vector, n):
    """A vector n times in a row."""
    return concatenate([vector] * n)


@cache
def pairs_of(n, apart=0):
    """The pairs i <= j of `n`, those at least `apart`, by rows: two arrays."""
    return np.triu_indices(n, apart)


@cache
def pair_places(n):
    """(n, n): where the pair (i, j) stands among those of the upper triangle, by rows."""
    place = np.empty((n, n), dtype=np.intp)
    first, second = pairs_of(n)
    place[first, second] = place[second, first] = np.arange(len(first))
    place.flags.writeable = False  # it is shared
    return place


def any_nonzero(array):
    """Whether a number of `array` is not zero."""
    if isinstance(array, np.ndarray):  # mostly, the first one is not
        return array.size > 0 and (array.item(0) != 0 or bool(array.any()))
    return bool(namespace(array).any(array != 0))
