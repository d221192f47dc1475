"""What all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

# No timed assertions: a busy machine must not fail a test. The same examples in each run.
settings.register_profile("voxmill", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("voxmill")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def lightsheet():
    """The folder of real light-sheet volumes; skips where it is absent."""
    folder = SHARED / "lightsheet"
    if not folder.is_dir():
        pytest.skip(f"the real light-sheet volumes are not at {folder}")
    return folder
