"""volume -> plan -> tiles -> predictions -> stitched -> cells -> evaluation -> report"""

from snakemake.utils import min_version

min_version("9.27")


# A user's own --configfile replaces the demo's, it is not merged with it.
if not {"volumes", "scans", "training"} & set(config):

    configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/resources.smk"
include: "rules/targets.smk"
include: "rules/volume_helpers.smk"
include: "rules/prediction_helpers.smk"
include: "rules/evaluation_helpers.smk"
include: "rules/training_helpers.smk"
include: "rules/denoise_helpers.smk"


wildcard_constraints:
    volume=name_pattern(CONFIG.volumes),
    network=name_pattern(CONFIG.cards),
    method="|".join([*CONFIG.cards, "baseline"]),
    tile=r"z\d+_y\d+_x\d+",
    batch=r"z\d+_y\d+_x\d+",
    slab=r"z\d+",
    # Matches nothing where nothing is trained: other models are nobody's output.
    trained="|".join(CONFIG.settings["training"]) or "(?!)",


localrules:
    all,
    tiles,
    predict,
    stitch,
    cells,
    evaluate,
    train,
    seams,


# Every durable product is listed, because Snakemake does not miss a deleted intermediate file.
rule all:
    default_target: True
    input:
        durable_products(),
        denoised_products(),


include: "rules/volume.smk"
include: "rules/plan.smk"
include: "rules/tiles.smk"
include: "rules/predict.smk"
include: "rules/stitch.smk"
include: "rules/seams.smk"
include: "rules/cells.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/train.smk"
include: "rules/denoise.smk"
