"""The shipped profile on a cluster with accounting: accounts, sacct, the efficiency report."""

import getpass

import pytest
import yaml

from tests.slurm.workspace import ROOT, Workspace, tries, wait_until


@pytest.fixture
def work(accounting_cluster, tmp_path):
    """The workflow in miniature, for a user with an account on the cluster."""
    user = getpass.getuser()
    for command in (
        ("add", "account", "neuro"),
        ("add", "user", user, "account=neuro"),
        ("add", "qos", "quick"),
        ("modify", "user", user, "set", "qos+=quick"),
    ):
        accounting_cluster.run("sacctmgr", "--immediate", *command, check=False)
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump({"tiles": 3, "behaviour": {"z0001": {"fail_attempts": 1}}}))
    arguments = ["-s", str(ROOT / "tests/slurm/mini/Snakefile"), "--configfile", str(path)]
    return Workspace(tmp_path, accounting_cluster, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("status", ["squeue", "sacct"])
def test_account_qos_and_report(work, status):
    account = ("--default-resources", "slurm_account=neuro", "qos=quick", "runtime=5")
    work.snakemake("evaluate", options=("--slurm-status-command", status, *account))
    made = tries(work)
    assert [len(records) for records in made.values()] == [1, 2, 1]
    fields = "JobID,State,Account,QOS,ReqTRES,WorkDir"
    text = work.cluster.run("sacct", "-X", "--parsable2", "--noheader", f"--format={fields}")
    rows = [line.split("|") for line in text.splitlines()]
    mine = {row[0]: row[1:] for row in rows if row[-1] == str(work.folder)}
    for record in (record for records in made.values() for record in records):
        state, used_account, qos, resources, _ = mine[record["job_id"]]
        assert state == ("COMPLETED" if record["status"] == "done" else "FAILED")
        assert (used_account, qos) == ("neuro", "quick")
        assert "gres/gpu=1" in resources
    reports = list((work.folder / "logs/slurm").glob("efficiency_report_*.csv"))
    assert len(reports) == 1 and "Memory Usage" in reports[0].read_text()


@pytest.mark.slow
def test_an_unknown_account_is_one_clear_error(work):
    options = ("--default-resources", "slurm_account=nobody", "--retries", "0")
    failed = work.snakemake("evaluate", options=options, check=False)
    assert failed.returncode == 1
    assert "nobody" in failed.stderr and "account" in failed.stderr


@pytest.mark.slow
def test_a_run_survives_a_restart_of_the_controller(work):
    """The scheduler then asks the accounting; on clusters without one, only `resume` helps."""
    run = work.start("evaluate")
    wait_until(lambda: tries(work), 180, "a tile")
    work.cluster.restart_controller(after_s=30)
    assert run.wait(300) == 0
    assert [records[-1]["status"] for records in tries(work).values()] == ["done"] * 3
