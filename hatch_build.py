"""Build hook: compiles the C kernels into the package where there is a compiler, and installs without them where there is none."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("src/noiseproof/neurons/kernels")


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        folder = Path(self.root) / KERNELS
        spec = importlib.util.spec_from_file_location("_build", folder / "_build.py")
        assert spec is not None
        assert spec.loader is not None
        builder = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(builder)
        library = builder.build(folder)
        if library is not None:
            build_data["artifacts"].append(str(library.relative_to(self.root)))
            build_data["pure_python"] = False
            # any Python 3, but this kind of machine
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
