"""Devices of a job: SLURM's, a free one of this machine, or a clear error."""

import itertools
import json
import multiprocessing
import os
import sys
import time

import pytest

from voxmill.runtime import devices, records
from voxmill.runtime.errors import VoxmillError


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch, tmp_path):
    """A machine without GPUs and outside of SLURM, wherever these tests run."""
    for name in list(os.environ):
        if name.startswith(("SLURM", "CUDA_VISIBLE", "VOXMILL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VOXMILL_GPU_SLOTS", str(tmp_path / "slots"))
    monkeypatch.setattr(devices, "_cards", lambda: 0)


@pytest.fixture
def slurm_job(monkeypatch):
    """The environment of a SLURM job on node n7 that got GPU 3."""
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(records.shutil, "which", lambda name: None)


def claimed(*arguments):
    with devices.claim(*arguments) as held:
        return held


def test_cpu_where_no_gpu_is_asked_for():
    assert claimed(0, "auto").devices == ("cpu",)
    assert claimed(1, "cpu").devices == ("cpu",)


def test_auto_is_the_cpu_on_a_machine_without_gpus():
    assert claimed(1, "auto").devices == ("cpu",)


def test_cuda_is_refused_on_a_machine_without_gpus():
    with pytest.raises(VoxmillError, match=r"expected 1 GPU\(s\), found 0 .*is not set"):
        claimed(1, "cuda")


def test_unknown_device():
    with pytest.raises(VoxmillError, match="expected one of auto, cpu, cuda, found 'gpu'"):
        claimed(1, "gpu")


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_scheduled_job_without_its_gpu_fails_with_node_and_reason(
    slurm_job, monkeypatch, value, device
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    expected = rf"SLURM job 42 on node n7: expected 1 GPU.*found 0 .*is '{value}'"
    with pytest.raises(VoxmillError, match=expected):
        claimed(1, device)


def test_a_scheduled_job_takes_no_gpu_that_slurm_did_not_hand_out(slurm_job, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(devices, "_cards", lambda: 4)
    with pytest.raises(VoxmillError, match="found 0"):
        claimed(1, "auto")


def test_a_scheduled_job_that_sees_others_gpus_fails(slurm_job, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(VoxmillError, match=r"Node n7: .*asked for 1 GPU\(s\) but sees 3"):
        claimed(1, "auto")


def test_the_setting_for_tests_computes_on_the_cpu(slurm_job, monkeypatch):
    monkeypatch.setenv("VOXMILL_ALLOW_CPU", "1")
    held = claimed(1, "cuda")
    assert (held.devices, held.visible, held.node) == (("cpu",), ("3",), "n7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert claimed(1, "cuda").devices == ("cpu",)


def test_a_pytorch_that_cannot_use_the_gpu_is_named(slurm_job, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(VoxmillError, match=r"Node n7: the job holds GPU 3, but .* without CUDA"):
        claimed(1, "auto")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(VoxmillError, match=r"built for CUDA 13.0, found 0 usable device"):
        claimed(1, "auto")


def test_devices_are_numbered_from_zero_for_pytorch(slurm_job, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8f")
    held = claimed(2, "cuda")
    assert (held.devices, held.visible) == (("cuda:0", "cuda:1"), ("5", "GPU-8f"))


def test_claim_after_cuda_has_started_is_a_bug_of_ours(slurm_job, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda index: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match="after CUDA was started"):
        claimed(1, "auto")


def hold(record_path, seconds):
    """A job in its own process, holding one of two GPUs."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "0,1", "VOXMILL_ALLOW_CPU": "1"}
    devices._cards = lambda: 0
    devices._POLL_S = 0.01
    with devices.claim(1, "cuda", record_path, str(os.getpid())):
        time.sleep(seconds)


def test_local_jobs_never_share_a_gpu(tmp_path):
    context = multiprocessing.get_context("fork")
    path = tmp_path / "jobs.jsonl"
    jobs = [context.Process(target=hold, args=(path, 0.2)) for _ in range(6)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
        assert job.exitcode == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    held = [record for record in lines if record["event"] == "end"]
    assert len(held) == 6
    assert {tuple(record["visible"]) for record in held} == {("0",), ("1",)}
    for gpu in ("0", "1"):
        times = sorted((r["claimed"], r["end"]) for r in held if r["visible"] == [gpu])
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))


def test_a_killed_job_leaves_its_gpu(tmp_path):
    context = multiprocessing.get_context("fork")
    path = tmp_path / "jobs.jsonl"
    jobs = [context.Process(target=hold, args=(path, 60)) for _ in range(2)]
    for job in jobs:
        job.start()
    while not path.exists() or path.read_text().count('"event": "claim"') < 2:
        assert all(job.is_alive() for job in jobs)
        time.sleep(0.01)
    jobs[0].kill()
    jobs[0].join()
    last = context.Process(target=hold, args=(path, 0))
    last.start()
    last.join(60)
    assert last.exitcode == 0
    jobs[1].kill()
    jobs[1].join()


def test_records_of_a_good_and_a_failed_job(slurm_job, monkeypatch, tmp_path):
    monkeypatch.setenv("VOXMILL_ALLOW_CPU", "1")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "40")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    path = tmp_path / "logs" / "tile.jobs.jsonl"
    with devices.claim(1, "auto", path, "tile.tif"):
        pass
    with pytest.raises(ZeroDivisionError), devices.claim(1, "auto", path, "tile.tif"):
        _ = 1 / 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["event"] for record in lines] == ["start", "claim", "end"] * 2
    good, bad = lines[2], lines[5]
    assert (good["status"], bad["status"]) == ("done", "failed")
    assert bad["error"] == "ZeroDivisionError: division by zero"
    assert (good["node"], good["job_id"], good["array_job_id"]) == ("n7", "42", "40")
    assert (good["array_task_id"], good["visible"]) == ("2", ["3"])
    assert good["start"] <= good["claimed"] <= good["end"]
    assert good["peak_memory_mb"] > 1


def test_what_slurm_says_of_the_job(monkeypatch):
    answer = (
        "JobId=42 JobName=voxmill_x TimeLimit=00:30:00 MinMemoryNode=4G Restarts=1 "
        "SubmitTime=2026-01-01T10:00:00 EligibleTime=2026-01-01T10:01:00 StartTime=Unknown"
    )
    monkeypatch.setattr(records.shutil, "which", lambda name: "/usr/bin/scontrol")
    monkeypatch.setattr(
        records.subprocess, "run", lambda *a, **k: type("Done", (), {"stdout": answer})
    )
    facts = records._job_facts("42")
    assert facts["run"] == "voxmill_x" and facts["memory_per_node"] == "4G"
    assert facts["restarts"] == "1" and "allocated" not in facts
    assert facts["submitted"] < facts["eligible"]


def test_importing_does_not_import_torch():
    code = "import sys, voxmill.runtime.devices; sys.exit('torch' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
