"""What every level shares: the tests' own devcluster instance, so that a demo on the same machine is left alone."""

import os

os.environ.setdefault("DEVCLUSTER_INSTANCE", "test")
