"""What a cluster leaves in the kernel besides processes: mounts below its directory and cgroups named after its pods."""

import contextlib
import subprocess
from pathlib import Path

__all__ = ["remove_cgroups", "unmount_below"]

CGROUPS = Path("/sys/fs/cgroup")


def unmount_below(directory: Path) -> None:
    """Unmounts everything below `directory`, deepest first."""
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    prefix = f"{directory}/"
    for target in sorted((target for target in targets if target.startswith(prefix)), key=len, reverse=True):
        subprocess.run(["umount", "-l", target], check=False, capture_output=True)


def remove_cgroups() -> None:
    """Removes the empty cgroups that containers left; one that still holds a process, of whatever instance, refuses."""
    for controller in CGROUPS.iterdir():
        parent = controller / "k8s.io"
        if not parent.is_dir():
            continue
        for path in [*(child for child in parent.iterdir() if child.is_dir()), parent]:
            with contextlib.suppress(OSError):
                path.rmdir()
