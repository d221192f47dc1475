"""What the rules ask of a configuration: inputs, params, resources and targets.

Plain functions of the checked configuration and of a rule's wildcards. Nothing here imports
Snakemake, reads a voxel or imports torch.
"""

from voxmill.workflow.records import RECORDS, ignore_dates_of_scripts, renew_records
from voxmill.workflow.wildcards import pattern
from voxmill.workflow.workflow import Workflow

__all__ = ["RECORDS", "Workflow", "ignore_dates_of_scripts", "pattern", "renew_records"]
