"""Array libraries, their devices and types: the only module that names them."""

import os
from functools import partial
from importlib.util import find_spec

import numpy as np
import scipy
from sklearn import get_config

# In annotations: an array of any library.
Array = np.ndarray
# NumPy's own: an array, or a number of one.
OF_NUMPY = (np.ndarray, np.generic)

DISTRIBUTED = ("dask", "dask_expr", "dask_cudf")
# Those that fits run on: arrays can be changed in place. Of the first two array_api_compat
# makes what the standard says.
WRAPPED = ("torch", "cupy")
SUPPORTED = (*WRAPPED, "array_api_strict")

# What makes arrays from nothing, and needs to be told where.
CREATION = ("zeros", "ones", "empty", "full", "eye", "arange", "linspace")

HALF = ("float16", "bfloat16")

TF32 = 2.0**-11

# scikit-learn dispatches on arrays with SciPy 1.14 and later.
CAN_DISPATCH = tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 14)

SETTING = "sklearn.set_config(array_api_dispatch=True)"


class ReadAs:
    """What is no array, but reads as one: in places, types and libraries it is that of `like`."""

    like = None


def library(array):
    """The name of the library that an array is of."""
    array = array.like if isinstance(array, ReadAs) else array
    return type(array).__module__.partition(".")[0]


class Namespace:
    """The array-API namespace of a library, for arrays on one of its devices.

    New arrays are made on that device. `float64` is the widest type it has, which on some
    is float32.
    """

    def __init__(self, xp, device):
        self.xp, self.device = xp, device
        self.float64 = xp.float64 if has_float64(xp, device) else xp.float32

    def __getattr__(self, name):
        found = getattr(self.xp, name)
        if name in CREATION:
            found = partial(found, device=self.device)
        setattr(self, name, found)  # looked for once
        return found

    def __repr__(self):
        return f"{self.xp.__name__} on {self.device}"

    def asarray(self, values, *, dtype=None):
        """`values`, numbers or an array of NumPy's or of this library, on this device."""
        if isinstance(values, np.ndarray):
            if values.dtype == np.float64 and self.float64 != self.xp.float64:
                values = values.astype(np.float32)
            values = values if is_plain(values) else values.copy()
        return self.xp.asarray(values, dtype=dtype, device=self.device)

    def where(self, condition, a, b):
        """`a` where a condition holds, else `b`; one of them may be a number."""
        of = a if hasattr(a, "dtype") else b
        a, b = (v if hasattr(v, "dtype") else self.asarray(v, dtype=of.dtype) for v in (a, b))
        return self.xp.where(condition, a, b)


def is_plain(array):
    """Whether other libraries take a NumPy array as it is: no read-only or reversed memory."""
    return array.flags.writeable and all(stride >= 0 for stride in array.strides)


def has_float64(xp, device):
    """Whether a device computes in float64."""
    info = getattr(xp, "__array_namespace_info__", None)
    return info is None or "float64" in info().dtypes(device=device)


_known = {}  # namespaces by type and device, so that equal ones are identical


def namespace(array):
    """The array-API namespace of `array` on its device; NumPy itself for NumPy arrays."""
    if isinstance(array, OF_NUMPY):
        return np
    array = array.like if isinstance(array, ReadAs) else array
    key = type(array), str(getattr(array, "device", None))
    found = _known.get(key)
    if found is None:
        found = _known.setdefault(key, Namespace(standard(array), getattr(array, "device", None)))
    return found


def standard(array):
    """The module that does what the array API standard says for arrays like this one."""
    if library(array) in WRAPPED:
        try:
            from array_api_compat import array_namespace
        except ImportError as error:
            raise ImportError(
                f"Arrays of {library(array)} need the package array-api-compat: "
                "pip install array-api-compat."
            ) from error
        return array_namespace(array)
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    raise TypeError(
        f"{type(array).__name__} is not an array: expected a NumPy array or one "
        "that implements the array API standard."
    )


def is_numpy(array):
    """Whether `array` is NumPy's."""
    return isinstance(array, OF_NUMPY)


def is_array(value):
    """Whether `value` is an array of any library."""
    value = value.like if isinstance(value, ReadAs) else value
    wrapped = library(value) in WRAPPED and hasattr(value, "__dlpack__")
    return wrapped or is_numpy(value) or hasattr(value, "__array_namespace__")


def has_namespace(value):
    """Whether `value` is an array whose namespace is at hand: some need array_api_compat."""
    at_hand = library(value) not in WRAPPED or find_spec("array_api_compat") is not None
    return is_array(value) and at_hand


def is_dispatched(value):
    """Whether work with `value` is done by its own library: not NumPy's, and the user's wish."""
    return bool(get_config()["array_api_dispatch"] and is_array(value) and not is_numpy(value))


def writes_at(array):
    """Whether a library writes at places that an array names, which the standard leaves open."""
    return is_numpy(array) or library(array) in WRAPPED


def free_memory(array):
    """Bytes that are free on the device of an array; None in the memory of the CPU."""
    kind, device = library(array), getattr(array, "device", None)
    if kind == "torch" and device.type == "cuda":
        import torch

        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if kind == "cupy":
        import cupy

        return device.mem_info[0] + cupy.get_default_memory_pool().free_bytes()
    return None


def is_on_host(array):
    """Whether an array is in the memory of the CPU; NumPy's are, and all that says no device."""
    return not isinstance(array, ReadAs) and "cpu" in str(getattr(array, "device", "cpu")).lower()


def can_move(array, like):
    """Whether an array is on the host, and `like` on a device that takes it."""
    return (
        is_on_host(array) and not is_on_host(like) and library(array) in ("numpy", library(like))
    )


def moved(array, like):
    """An array of the host, on the device of `like` and of its library; it is there on return.

    With CUDA through pinned memory, which is copied beside what the device computes. CuPy has
    such memory of its own.
    """
    if not (library(like) == "torch" and like.device.type == "cuda"):
        return namespace(like).asarray(array)
    import torch

    dtype = getattr(torch, str(array.dtype).rpartition(".")[2])
    pinned = torch.empty(tuple(array.shape), dtype=dtype, pin_memory=True)
    if is_numpy(array):
        pinned.numpy()[...] = array
    else:
        pinned.copy_(array)
    stream = _streams.setdefault(str(like.device), torch.cuda.Stream(like.device))
    with torch.cuda.stream(stream):
        found = pinned.to(like.device, non_blocking=True)
    stream.synchronize()
    return found


_streams = {}  # of CUDA, by device: copies beside computations


def wait_for(like):
    """Until the device of an array has done what it was told, where the library does not say."""
    if library(like) == "torch" and like.device.type == "cuda":
        import torch

        torch.cuda.current_stream(like.device).synchronize()


def short_rounding(array):
    """The rounding of numbers in products on a device that are shorter there, TF32's; else 0."""
    if library(array) == "torch" and array.device.type == "cuda" and "32" in str(array.dtype):
        import torch

        settings = torch.backends.cuda.matmul
        short = getattr(settings, "fp32_precision", "tf32" if settings.allow_tf32 else "ieee")
        return TF32 if short == "tf32" else 0.0
    if library(array) == "cupy" and array.dtype == np.float32:
        return TF32 if os.environ.get("CUPY_TF32", "0") == "1" else 0.0
    return 0.0


def to_numpy(array):
    """A NumPy view of `array`, or a copy where it is out of NumPy's reach."""
    if isinstance(array, np.ndarray):
        return array
    kind = library(array)
    if kind == "torch":
        return array.detach().cpu().numpy()
    if kind == "cupy":
        return array.get()
    if kind == "array_api_strict" and "CPU_DEVICE" not in str(array.device):
        array = array.to_device(namespace(array).Device("CPU_DEVICE"))
    return np.from_dlpack(array)


def as_like(array, like):
    """`array` in the library and on the device of `like`."""
    xp = namespace(like)
    if namespace(array) is xp:
        return array
    return to_numpy(array) if xp is np else xp.asarray(to_numpy(array))


def in_memory(X):
    """NumPy's view of an array that is in the memory of the CPU, else the array itself.

    Half precision is left to the library, which makes float32 of a block at a time.
    """
    on_cpu = library(X) == "torch" and X.device.type == "cpu"
    return X.numpy() if on_cpu and not is_half(X) else X


def is_half(array):
    """Whether an array is in half precision, float16 or bfloat16."""
    return not is_numpy(array) and str(array.dtype).endswith(HALF)


def beside(array, given):
    """A result in NumPy as an array of the library and on the device of the rows `given`.

    What is no array of numbers, as labels of text, and all where nothing is dispatched, is
    left as it is.
    """
    numbers = isinstance(array, np.ndarray) and array.dtype.kind in "bif"
    return as_like(array, given) if numbers and is_dispatched(given) else array


def all_beside(y, metadata, given):
    """Labels and what belongs to them :func:`beside` rows; all in NumPy where labels are text."""
    moved = beside(y, given)
    if moved is y:
        return y, metadata
    return moved, {key: beside(value, given) for key, value in metadata.items()}


def place(array):
    """Where an array is, in words: its library and device. What is no array is NumPy's."""
    if is_numpy(array) or not is_array(array):
        return "of NumPy"
    return f"of {library(array)} on {array.device}"


def check_place(X, other, what, of="those passed to fit()"):
    """Raise where X is not where another array is, and dispatching asks for that."""
    if get_config()["array_api_dispatch"] and place(X) != place(other):
        raise ValueError(
            f"Inputs passed to {what} must use the same namespace and the same device as {of}: "
            f"arrays {place(X)} were passed, and those are {place(other)}."
        )


def solve_triangular(L, b, *, transposed=False):
    """L⁻¹ b, or L⁻ᵀ b, for a lower triangular L and columns b, not of NumPy's."""
    kind, xp = library(L), namespace(L)
    if kind == "torch":
        return xp.linalg.solve_triangular(L.mT if transposed else L, b, upper=transposed)
    if kind == "cupy":
        from cupyx.scipy import linalg

        return linalg.solve_triangular(L, b, lower=True, trans=int(transposed))
    return xp.linalg.solve(L.T if transposed else L, b)


def refuse_distributed(value, what):
    """Raise for a Dask collection, which NumPy would gather without a word.

    It is known by the name of its module: nothing is imported.
    """
    if is_distributed(value):
        kind = type(value)
        raise TypeError(
            f"{what} is a Dask collection ({kind.__module__}.{kind.__qualname__}), which is not "
            f"supported here. If it fits into the memory of this machine, pass {what}.compute()."
        )


def is_distributed(value):
    """Whether `value` is a Dask collection, by the name of its module."""
    return any(base.__module__.partition(".")[0] in DISTRIBUTED for base in type(value).__mro__)


def refuse_foreign(array, what):
    """Raise for an array that is to be dispatched, and cannot be."""
    refuse_distributed(array, what)
    if library(array) not in SUPPORTED:
        raise TypeError(
            f"{what} is an array of {library(array)}, which array_api_dispatch=True does not "
            f"reach here: arrays of {', '.join(SUPPORTED)} or NumPy are taken."
        )
    if getattr(array, "requires_grad", False):
        raise ValueError(
            f"{what} requires gradients, and none flow through a fit: pass {what}.detach()."
        )
    if str(getattr(array, "layout", "torch.strided")) != "torch.strided":
        raise TypeError(f"{what} is a sparse tensor; sparse data are taken as SciPy's CSR arrays.")
