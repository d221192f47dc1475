"""The checked configuration, for all rules and their helpers."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import ancient

# Rules and scripts import the library from the folder of the Snakefile; nothing is installed.
sys.path.insert(0, str(Path(workflow.basedir)))

from voxmill.workflow import configuration
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.digests import source_digest


def checked_config():
    """The configuration, or one message that names what is wrong with it."""
    try:
        return configuration.load(config)
    except VoxmillError as error:
        raise WorkflowError(str(error)) from None


CONFIG = checked_config()
