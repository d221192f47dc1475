"""The finished run and its copies, as the tests of whole runs have them."""

from tests.workflow.conftest import finished, project

__all__ = ["finished", "project"]
