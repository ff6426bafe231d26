"""The example scripts are run as files, not installed: their folder goes onto the path as Python does it for a script."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "finance_lora"))
