"""Devices of a job: SLURM's, a free one of this machine, or a clear error."""

import itertools
import json
import multiprocessing
import os
import sys
import time

import pytest

from voxmill.runtime import cards, devices, records
from voxmill.runtime.errors import VoxmillError


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch, tmp_path):
    """A machine without GPUs and outside of SLURM, wherever these tests run."""
    # Set first, so that what a claim sets is unset again at the end.
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "")
    for name in list(os.environ):
        if name.startswith(("SLURM", "CUDA_", "PYTORCH_", "VOXMILL_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(cards, "listed", lambda: ())
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


@pytest.fixture
def two_gpus(slurm_job, monkeypatch):
    """A PyTorch for CUDA 13 that sees a T4 and a V100."""
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", [(7, 5), (7, 0)].__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_name", ["T4", "V100"].__getitem__)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_120"])
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", print, raising=False)
    return torch


def test_a_gpu_that_pytorch_has_no_kernels_for_is_refused_with_the_right_wheel(two_gpus):
    expected = (
        r"Node n7: V100 has compute capability 7\.0, and this PyTorch \(.*, CUDA 13\.0\) has code "
        r"for sm_75, sm_90, compute_120 alone\. Install PyTorch for CUDA 12\.6: "
        r"pip install -r requirements-cuda126\.lock\."
    )
    with pytest.raises(VoxmillError, match=expected):
        claimed(2, "cuda")


def test_gpus_that_pytorch_has_kernels_for(two_gpus, monkeypatch, capsys):
    monkeypatch.setattr(two_gpus.cuda, "get_arch_list", lambda: ["sm_50", "sm_70", "sm_75"])
    assert claimed(2, "cuda").devices == ("cuda:0", "cuda:1")
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    # PyTorch was imported before, and may have read the environment then.
    assert capsys.readouterr().out == "expandable_segments:True\n"


def test_settings_of_the_allocator_in_the_environment_stay(two_gpus, monkeypatch, capsys):
    monkeypatch.setattr(two_gpus.cuda, "get_arch_list", list)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:512")
    claimed(2, "cuda")
    assert "PYTORCH_CUDA_ALLOC_CONF" not in os.environ
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 6), ["sm_80"], True),  # code of the same major number
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),  # another major number
        ((10, 3), ["sm_90", "compute_90"], True),  # compiled by the driver
        ((7, 5), ["compute_80"], False),
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),  # code of one card alone
        ((12, 1), ["sm_100", "sm_120"], True),
        ((9, 0), ["gfx942"], False),  # of another maker
        ((9, 0), [], True),  # nothing is known
    ],
)
def test_kernels_of_architectures(capability, architectures, runs):
    assert (cards.without_kernels(capability, architectures, "") is None) == runs


@pytest.mark.parametrize(
    ("capability", "advice"),
    [
        ((7, 5), "CUDA 13: pip install -r requirements-cuda13.lock"),
        ((12, 0), "CUDA 13: pip install -r requirements-cuda13.lock"),
        ((6, 0), "CUDA 12.6: pip install -r requirements-cuda126.lock"),
        ((3, 7), "No wheel of PyTorch 2.13 has"),
        ((13, 0), "No wheel of PyTorch 2.13 has"),
    ],
)
def test_which_wheel_works(capability, advice):
    assert advice in cards.without_kernels(capability, ["sm_86"], "x")


@pytest.mark.parametrize(
    ("version", "bad"), [(90702, 0), (90800, 1), (91002, 1), (91400, 1), (91500, 0), (None, 0)]
)
def test_cudnns_that_should_not_compute_in_half_precision(version, bad):
    assert bool(cards.cudnn_problem(version)) == bool(bad)


def test_the_log_warns_once_of_such_a_cudnn(monkeypatch, caplog):
    torch = pytest.importorskip("torch")
    from voxmill.engine import torch_backends

    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    torch_backends.warn_of_cudnn.cache_clear()
    for _ in range(2):
        torch_backends.warn_of_cudnn()
    assert [r.message[:30] for r in caplog.records] == ["cuDNN 9.10.2 computes 3D convo"]
    torch_backends.warn_of_cudnn.cache_clear()


# --- names of cards ----------------------------------------------------------------------------

NVIDIA_SMI = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11aa)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6a1)
  MIG 3g.20gb     Device  1: (UUID: MIG-c6a2)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22bb)
"""
CARDS = cards.parse(NVIDIA_SMI)


@pytest.fixture
def workstation(monkeypatch):
    """Two A100, the first in two slices."""
    monkeypatch.setattr(cards, "listed", lambda: CARDS)
    monkeypatch.setattr(devices, "_cards", lambda: 2)
    monkeypatch.setenv("VOXMILL_ALLOW_CPU", "1")  # stands in for the PyTorch of that machine


def test_jobs_of_a_workstation_take_slices_and_whole_cards(workstation):
    assert devices.visible_gpus() == ["MIG-c6a1", "MIG-c6a2", "1"]


def test_without_slices_cards_keep_their_numbers(workstation, monkeypatch):
    monkeypatch.setattr(cards, "listed", lambda: (cards.Card("GPU-1"), cards.Card("GPU-2")))
    assert devices.visible_gpus() == ["0", "1"]
    monkeypatch.setattr(cards, "listed", lambda: CARDS[:1])
    assert devices.visible_gpus() == ["0", "1"], "nvidia-smi sees another number of cards"


@pytest.mark.parametrize(
    ("mine", "theirs", "free"),
    [
        ("1", "GPU-22bb", None),  # a number and a UUID
        ("GPU-22bb", "1,GPU-22", None),  # a UUID, a number, and the first signs of the UUID
        ("GPU-22bb", "1,GPU-11aa", "GPU-11aa"),
        ("0", "MIG-c6a1,MIG-c6a2", "MIG-c6a2"),  # a card with slices stands for its first
        ("MIG-c6a1", "MIG-c6a2", "MIG-c6a2"),
        ("GPU-99", "GPU-99", None),  # of no card that nvidia-smi knows
    ],
)
def test_one_lock_for_all_names_of_a_gpu(workstation, monkeypatch, mine, theirs, free):
    class Waits(Exception):
        pass

    def give_up(seconds):
        raise Waits

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mine)
    with devices.claim(1, "cuda"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", theirs)
        monkeypatch.setattr(devices.time, "sleep", give_up)
        if free is None:
            with pytest.raises(Waits):
                claimed(1, "cuda")
        else:
            assert claimed(1, "cuda").visible == (free,)


def test_a_card_that_is_named_twice_is_one(workstation, monkeypatch):
    monkeypatch.delenv("VOXMILL_ALLOW_CPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-22bb")
    with pytest.raises(VoxmillError, match=r"expected 2 GPU\(s\), found 1"):
        claimed(2, "cuda")


def test_numbers_are_no_cards_where_cuda_counts_the_fastest_first(workstation, monkeypatch):
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert devices._lock_of("1") == "1"
    assert devices.visible_gpus() == ["0", "1"]


def test_two_slices_are_not_for_one_job(workstation):
    with pytest.raises(VoxmillError, match="asked for 2 GPUs and sees MIG-c6a1, MIG-c6a2: a proc"):
        claimed(2, "cuda")


def test_what_nvidia_smi_says(monkeypatch):
    monkeypatch.undo()
    listed = cards.listed.__wrapped__

    def answer(command, **keywords):
        assert command == ["nvidia-smi", "-L"]
        return type("Done", (), {"stdout": NVIDIA_SMI})

    monkeypatch.setattr(cards.subprocess, "run", answer)
    assert [card.uuid for card in listed()] == ["GPU-11aa", "GPU-22bb"]
    for error in (FileNotFoundError(), cards.subprocess.TimeoutExpired("nvidia-smi", 30)):
        monkeypatch.setattr(cards.subprocess, "run", lambda *a, error=error, **k: fail(error))
        assert listed() == ()


def fail(error):
    raise error


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
