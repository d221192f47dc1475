"""What all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.data_sources import LIGHTSHEET_SOURCE, SHARED

# No timed assertions: a busy machine must not fail a test. The same examples in each run.
settings.register_profile("voxmill", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("voxmill")

# Where there is no GPU, Triton's interpreter runs the GPU kernels; it must be asked for before
# Triton is imported. (Torch can't be asked here for a GPU: its import takes seconds.)
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def lightsheet():
    """The folder of real light-sheet volumes; skips where it is absent."""
    folder = SHARED / "lightsheet"
    if not folder.is_dir():
        pytest.skip(f"not at {folder}: {LIGHTSHEET_SOURCE}")
    return folder
