"""Part of building or installing the project: compiles the merge engine's kernels and adds them to the wheel."""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = "merge_job_image/lora_job/kernels"


class CompiledKernels(BuildHookInterface):
    """Called by hatchling, also for an editable installation."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """A wheel with libraries is for one platform, whatever Python it is."""
        built = runpy.run_path(str(Path(self.root) / KERNELS / "build.py"))["build"]()
        if built:
            build_data["artifacts"] += [f"/{KERNELS}/*.so"]
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-manylinux_2_17_x86_64"
