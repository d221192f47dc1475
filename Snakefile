"""volume -> plan -> tiles -> predictions -> stitched -> cells -> evaluation -> report"""

import sys

from snakemake import jobs as snakemake_jobs
from snakemake.logging import logger
from snakemake.utils import min_version

min_version("9.27")


# Snakemake puts the folder of this file on sys.path: nothing is installed. Read from git, it is a
# copy of the commit.
include: "rules/library.smk"


from voxmill.runtime.digests import source_digest
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.paths import shipped
from voxmill.workflow import (
    RECORDS,
    Workflow,
    ignore_dates_of_scripts,
    pattern,
    renew_records,
)

ignore_dates_of_scripts(snakemake_jobs)


# How the report begins.
report: "docs/captions/workflow.rst"


# A user's own --configfile replaces the demo's, it is not merged with it.
if not {"volumes", "scans", "training"} & set(config):

    configfile: shipped("config.yaml")


# All that rules ask of the configuration; what is wrong with it is one message.
try:
    W = Workflow.load(
        config,
        executor=workflow,
        ancient=ancient,
        temporary=lambda path: temp(directory(path)),
        files=workflow.configfiles,
        given=workflow.config_settings.config,
        results=workflow.modifier.path_modifier.replace_prefix("results/"),
    )
except VoxmillError as error:
    # An exception would be shown with lines of this file, in which nothing is wrong.
    sys.exit(f"Error: {error}")

# Jobs parse this file again: they need not say it once more.
if workflow.is_main_process:
    renew_records()
    for warning in [*W.config.warnings, *W.notice_lost()]:
        logger.warning(warning)


wildcard_constraints:
    volume=pattern(W.config.volumes),
    network=pattern(W.config.cards),
    method=pattern([*W.config.cards, "baseline"]),
    tile=r"z\d+_y\d+_x\d+",
    batch=r"z\d+_y\d+_x\d+",
    slab=r"z\d+(_y\d+)?",
    levels=r"levels|label_levels",
    image=r"probability|labels",
    level=r"\d+",
    row=r"\d+",
    # Of nothing where nothing is trained: other models are nobody's output.
    trained=pattern(W.config.settings["training"]),
    scan=pattern(W.scans.denoising.scans),
    format=r"[a-z]+",
    dataset=pattern(W.scans.denoising.datasets),


rule all:
    default_target: True
    input:
        W.targets.durable(),


include: "rules/volume.smk"
include: "rules/plan.smk"
include: "rules/tiles.smk"
include: "rules/predict.smk"
include: "rules/stitch.smk"
include: "rules/seams.smk"
include: "rules/cells.smk"
include: "rules/evaluate.smk"
include: "rules/segment.smk"
include: "rules/report.smk"
include: "rules/export.smk"
include: "rules/train.smk"
include: "rules/denoise.smk"


# Only now is each job complete for Snakemake: one that was killed before would begin again.
onsuccess:
    W.end_well()
