"""Reading the pickles in which CIFAR is published, without the power of pickle: nothing that a file names is ever called.

A pickle is a program: it names functions and calls them. Here a name is looked up in a table of a few stand-ins that only
collect plain values; every other name is refused. Not even NumPy's own functions are called with what a file says, because
a forged dtype can make an array of objects out of raw bytes.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from typing import TYPE_CHECKING, Any

from noiseproof.errors import NoiseproofError

if TYPE_CHECKING:
    import numpy as np

# all that plain data need; what is left out makes objects, refers to the outside or sets memory aside unasked
# fmt: off
STEPS = frozenset({
    "PROTO", "STOP", "FRAME", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2",
    "LONG", "LONG1", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST", "APPEND",
    "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET",
    "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
})
# fmt: on
PLAIN = re.compile(r"b1|[iu][1248]|f[248]")  # dtypes whose every bit pattern is a valid number


def load_plain(content: bytes, source: object) -> dict[str, Any]:
    """Return the dict in a pickle: lists, dicts, text, bytes, numbers and arrays of numbers; keys as text.

    Text that Python 2 wrote comes as bytes.

    Raises `NoiseproofError`, naming `source`, for a pickle that asks for anything else, is damaged, or holds no dict.

    >>> load_plain(pickle.dumps({"labels": [3, 1]}, protocol=2), "a small file")
    {'labels': [3, 1]}
    """
    try:
        _check_steps(content, source)
        found = _Restricted(io.BytesIO(content), source).load()
        if not isinstance(found, dict):
            raise TypeError("it holds no dict")
        return {_text(key): value.array if isinstance(value, _Array) else value for key, value in found.items()}
    except NoiseproofError:
        raise
    except Exception as error:  # a damaged pickle can go wrong in every way there is
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise NoiseproofError(f"{source} is cut off, damaged or no pickle of plain data: {reason}; delete it and fetch it again") from None


def _check_steps(content: bytes, source: object) -> None:
    """Look through the program before it runs: the number of a memory cell alone can make pickle set aside gigabytes."""
    for step, argument, _ in pickletools.genops(content):
        if step.name not in STEPS or ("PUT" in step.name and (argument or 0) > len(content)):
            raise NoiseproofError(
                f"{source} does {step.name}, which plain data do not need: nothing of it was executed; do not trust this file, "
                "fetch the official one"
            )


class _Restricted(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, source: object) -> None:
        super().__init__(file, encoding="bytes")
        self.source = source

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the stand-in; raise `NoiseproofError` for every name that has none."""
        stand_in = _STAND_INS.get((module_name, global_name))
        if stand_in is None:
            asked = f"{module_name}.{global_name}".encode("ascii", "backslashreplace").decode()
            raise NoiseproofError(
                f"{self.source} asks for {asked[:100]!r}: only numbers, text, lists, dicts and arrays are read from a pickle and "
                "nothing is executed; do not trust this file, fetch the official one"
            )
        return stand_in


class _NDArray:
    """Stands for `numpy.ndarray`, which files name as the type to be made."""


class _DType:
    """Stands for `numpy.dtype`: its code, then by `__setstate__` its byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        self.code, self.order = _text(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])

    def numpy(self) -> np.dtype[Any]:
        """Return the NumPy type; raise `TypeError` for one that is not of plain numbers."""
        import numpy as np

        if not PLAIN.fullmatch(self.code) or self.order not in ("|", "<", ">", "="):
            raise TypeError(f"it has an array of type {self.order}{self.code}, which is no plain number")
        return np.dtype(self.code if self.order == "|" else self.order + self.code)


class _Array:
    """Stands for an array that is being made: `_reconstruct`, then `__setstate__` with all that it consists of."""

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        import numpy as np

        _, shape, dtype, fortran, content = state
        if not (isinstance(dtype, _DType) and isinstance(content, bytes) and all(type(n) is int and n >= 0 for n in shape)):
            raise TypeError("it has an array that is not made of plain numbers")
        self.array = np.frombuffer(content, dtype.numpy()).reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDArray:
        raise TypeError("it has an array of an unknown kind")
    return _Array()


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise TypeError(f"it has text in encoding {encoding!r}")
    return text.encode("latin1")  # how Python 3 writes bytes into a pickle that Python 2 can read


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise TypeError(f"it has {type(value).__name__} where text belongs")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _NDArray,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}
