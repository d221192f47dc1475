"""Inputs and params of cells, their evaluation and the report."""


def cell_settings(wildcards):
    """Settings of the cell finder, from the model's card where asked for."""
    return CONFIG.cell_settings(wildcards.network)


def baseline_settings(wildcards):
    """Settings of the difference of Gaussians."""
    section = CONFIG.settings["evaluation"]
    return {
        "cell_diameter_um": 2 * section["max_distance_um"],
        "min_distance_um": CONFIG.settings["cells"]["min_distance_um"],
        "max_distance_um": section["max_distance_um"],
    }


def evaluation_settings(wildcards):
    """Settings of the evaluation of one volume."""
    section = dict(CONFIG.settings["evaluation"])
    section.pop("baseline")
    return section | {"region": CONFIG.volumes[wildcards.volume].settings.get("region")}


def matches_if_any(wildcards):
    """Matched points of a network, where the volume has a truth."""
    if CONFIG.volumes[wildcards.volume].has_truth:
        return f"results/{wildcards.volume}/{wildcards.network}/matches.csv"
    return []


def methods_on(wildcards):
    """Names of all methods on one volume."""
    return methods_of(wildcards.volume)


def evaluations_of(wildcards):
    """Evaluations of all methods on one volume."""
    folder = f"results/{wildcards.volume}"
    return [
        f"{folder}/{method}/evaluation.json" for method in methods_of(wildcards.volume)
    ]
