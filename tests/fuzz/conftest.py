"""What must be set before the libraries are imported."""

import os

# Arrow's own pool reserves a gigabyte at its first use, which counts as allocated.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
