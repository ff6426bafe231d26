"""What a cluster leaves in the kernel besides processes: mounts below its directory and cgroups named after its pods."""

import contextlib
import subprocess
from pathlib import Path

from devcluster.addresses import Instance

__all__ = ["remove_cgroups", "unmount_below"]


def unmount_below(directory: Path) -> None:
    """Unmounts everything below `directory`, deepest first."""
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    prefix = f"{directory}/"
    for target in sorted((target for target in targets if target.startswith(prefix)), key=len, reverse=True):
        subprocess.run(["umount", "-l", target], check=False, capture_output=True)


def remove_cgroups(instance: Instance) -> None:
    """Removes the empty cgroups that containers of this instance left; those of others are not empty or not ours."""
    marker = instance.directory / "cgroups"
    if not marker.exists():
        return
    for name in marker.read_text().split():
        for root in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            for path in sorted((root / name).rglob("*"), key=lambda found: len(str(found)), reverse=True):
                if path.is_dir():
                    with contextlib.suppress(OSError):
                        path.rmdir()
            with contextlib.suppress(OSError):
                (root / name).rmdir()
