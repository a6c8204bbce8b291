"""Settings of the test processes, made before any framework is imported."""

import os

# Two workers on two cores: threads of their own would only take the cores from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
