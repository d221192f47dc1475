"""What the rules ask of a configuration: inputs, params, resources and targets.

Plain functions of the checked configuration and of a rule's wildcards. Nothing here imports
Snakemake, reads a voxel or imports torch.
"""

from voxmill.workflow.wildcards import pattern
from voxmill.workflow.workflow import RECORDS, Workflow

__all__ = ["RECORDS", "Workflow", "pattern"]
