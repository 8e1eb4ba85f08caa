"""Builds the C kernels at installation. Standard library only: the build hook runs it where nothing else is installed yet."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

FLAGS = ("-O3", "-fopenmp", "-fPIC", "-fvisibility=default", "-std=c11", "-D_DEFAULT_SOURCE")
# Spikes are decided by the neurons' arithmetic, which must round as PyTorch's does. Matrix products have no such order to keep
CONTRACT = {"neurons.c": "off", "recurrent.c": "off", "rows.c": "fast"}


def library_path(folder: Path) -> Path | None:
    """Return the library that was built from the sources as they are, None where there is none."""
    path = folder / _name(folder / "c")
    return path if path.is_file() else None


def build(folder: Path) -> Path | None:
    """Compile `folder`/c/*.c into one shared library in `folder`; None where there is no compiler that can.

    First with one version of each loop per generation of x86-64 processors, then, where the compiler cannot do that, with one.
    """
    made = library_path(folder)
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("gcc", "clang", "cc")), None)
    if made is not None or compiler is None:
        return made
    for path in folder.glob("kernels_*.so"):
        path.unlink()  # of older sources
    x86 = platform.machine() in ("x86_64", "AMD64")
    for extra in ((), ("-DPLAIN",)) if x86 else (("-DPLAIN",),):
        with tempfile.TemporaryDirectory() as temporary:
            if _compile(compiler, folder / "c", Path(temporary), extra):
                target = folder / _name(folder / "c")
                fresh = target.with_suffix(f".{os.getpid()}")
                shutil.copyfile(Path(temporary) / "kernels.so", fresh)
                os.replace(fresh, target)
                return target
    return None


def _compile(compiler: str, sources: Path, work: Path, extra: tuple[str, ...]) -> bool:
    objects = [work / f"{name}.o" for name in CONTRACT]
    commands = [
        [compiler, *FLAGS, *extra, f"-ffp-contract={contract}", "-c", str(sources / name), "-o", str(work / f"{name}.o")]
        for name, contract in CONTRACT.items()
    ]
    try:
        running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in commands]
        codes = [process.wait() for process in running]
        if any(codes):
            return False
        link = [compiler, "-shared", "-fopenmp", *map(str, objects), "-o", str(work / "kernels.so"), "-lm"]
        return subprocess.run(link, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _name(sources: Path) -> str:
    """Return a name that holds the hash of sources and flags, so that a library of older ones is never loaded."""
    digest = hashlib.sha256(repr((FLAGS, CONTRACT, platform.machine())).encode())
    for path in sorted(sources.glob("*.[ch]")):
        digest.update(path.read_bytes())
    return f"kernels_{digest.hexdigest()[:16]}.so"
