"""The profile for clusters says what it should, and names rules that exist."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
RULES = {
    name
    for path in (ROOT / "rules").glob("*.smk")
    for name in re.findall(r"^rule (\w+):", path.read_text(), re.MULTILINE)
}


@pytest.fixture(scope="module")
def profile():
    return yaml.safe_load(PROFILE.read_text())


def test_the_short_name_is_a_link_in_the_root():
    assert (ROOT / "slurm").is_symlink() and (ROOT / "slurm/config.yaml").samefile(PROFILE)
    assert not (ROOT / "profiles/default").exists()


def test_every_gpu_rule_is_in_the_block_for_gpu_jobs(profile):
    texts = [path.read_text() for path in (ROOT / "rules").glob("*.smk")]
    bodies = {
        match[1]: match[2]
        for text in texts
        for match in re.finditer(r"^rule (\w+):\n((?:[ \n].*\n?)*)", text, re.MULTILINE)
    }
    on_gpus = {name for name, body in bodies.items() if re.search(r"^\s+gpu=", body, re.M)}
    assert "predict_tile" in on_gpus
    assert on_gpus <= set(profile["set-resources"])
    assert set(profile["set-resources"]) <= RULES


def test_retries_are_in_the_profile_alone(profile):
    assert profile["retries"] >= 1
    for path in (ROOT / "rules").glob("*.smk"):
        assert not re.search(r"^\s+retries:", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize(
    "key", ["keep-going", "rerun-incomplete", "latency-wait", "slurm-efficiency-report"]
)
def test_what_a_shared_file_system_needs(profile, key):
    assert profile[key]


def test_the_queue_is_asked_before_slurm_forgets(profile):
    # Three times this is the MinJobAge that the plugin wants; SLURM's default is 300 s.
    assert 3 * profile["slurm-init-seconds-before-status-checks"] <= 300
    assert profile["slurm-status-command"] == "squeue"
    assert "slurm-array-jobs" not in profile


def test_the_commented_lines_are_valid_too():
    """A user removes the `#`s: what then stands there is YAML, with the same keys beside it."""
    lines = PROFILE.read_text().splitlines()
    entry = r"^(\s*)# (\s*)(?=[a-z_-]+:($| [\w<]))"
    opened = [re.sub(entry, r"\1\2", line) for line in lines]
    content = yaml.safe_load("\n".join(line for line in opened if not line.startswith("# ")))
    assert content["set-resources"]["predict_tile"]["gpu_model"] == "a100"
    assert content["set-resources"]["denoise_scan"]["slurm_partition"] == "gpu"
    assert content["default-resources"]["slurm_account"] == "mylab"
