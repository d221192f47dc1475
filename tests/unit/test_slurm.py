"""The parts of `voxmill.slurm` that need no cluster; tests/slurm tests the others."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from voxmill.runtime.errors import VoxmillError
from voxmill.slurm import __main__ as cli
from voxmill.slurm import array, commands, resume, table
from voxmill.slurm.dag import PlannedJob


def record(second, **fields):
    start = f"2026-01-01T10:00:{second:02d}.000+00:00"
    return {"task": "t.tif", "start": start, "node": "n1", "host": "h", "pid": second} | fields


def write(folder, name, *records):
    path = folder / "logs" / "predict_tile" / f"{name}.jobs.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in records))


def test_table_counts_tries_waits_and_gpu_seconds(tmp_path):
    at = "2026-01-01T10:00:{:02d}.000+00:00".format
    killed = record(10, visible=["0"], claimed=at(11), allocated=at(8), eligible=at(7))
    good = record(
        30, visible=["1"], claimed=at(31), allocated=at(28), eligible=at(20), end=at(40),
        status="done", peak_memory_mb=100.0, job_id="9",
    )  # fmt: skip
    older = record(1, visible=["0"], claimed=at(1), end=at(5), status="done")
    write(tmp_path, "a", older, killed, good)
    (row,) = table.read(tmp_path)
    assert (row.seconds, row.wait_s, row.gpu_seconds, row.retries) == (10.0, 8.0, 12.0, 1)
    assert (row.status, row.devices, row.job, row.memory_mb) == ("done", "1", "9", 100.0)
    assert "1 of 1 done" in table.formatted([row])


def test_table_of_a_local_job_that_vanished(tmp_path):
    write(tmp_path, "a", record(10))
    (row,) = table.read(tmp_path)
    assert (row.status, row.devices, row.seconds, row.job) == ("vanished", "cpu", 0.0, "h:10")


def test_table_ignores_a_line_cut_short(tmp_path):
    write(tmp_path, "a", record(10, status="done"))
    path = tmp_path / "logs/predict_tile/a.jobs.jsonl"
    path.write_text(path.read_text() + '{"task": "t.t')
    assert len(table.read(tmp_path)) == 1


def test_table_as_csv(tmp_path):
    write(tmp_path, "a", record(10, status="done"))
    table.write_csv(tmp_path / "t.csv", table.read(tmp_path))
    header, line = (tmp_path / "t.csv").read_text().splitlines()
    assert header.split(",")[:2] == ["task", "status"] and line.startswith("t.tif,done,n1,cpu")


def test_table_of_very_many_tasks_is_a_line_a_folder(tmp_path):
    at = "2026-01-01T10:00:{:02d}.000+00:00".format
    for number in range(201):
        task = f"results/v/{'ab'[number % 2]}/batches/z{number:04d}.json"
        done = record(10, task=task, status="done", end=at(10 + number % 3), claimed=at(10))
        write(tmp_path, f"{number}", done | {"visible": ["0"], "peak_memory_mb": 50.0 + number})
    rows = table.read(tmp_path)
    lines = [line.split() for line in table.formatted(rows).splitlines()]
    assert lines[0][:3] == ["folder", "tasks", "s"]
    assert lines[1] == ["results/v/a/batches", "101", "1.0", "0.0", "101.0", "0", "250", "0"]
    assert lines[2][:3] == ["results/v/b/batches", "100", "1.0"]
    assert len(lines) == 5
    write(tmp_path, "0", record(10, task="results/v/a/batches/z0000.json", status="failed"))
    text = table.formatted(table.read(tmp_path))
    assert "results/v/a/batches/z0000.json  failed" in text
    assert "0001.json" not in text
    assert text.endswith(
        "200 of 201 done; median 1.0 s, median wait 0.0 s, 201.0 GPU-seconds, "
        "0 retries, peak memory 250 MB"
    )


def test_no_records(tmp_path):
    with pytest.raises(VoxmillError, match=r"expected records of jobs .* found none"):
        table.read(tmp_path)


def locked(folder, *outputs):
    """Make the locks that a killed scheduler leaves in a folder."""
    locks = folder / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("".join(f"{name}\n" for name in outputs))
    before = time.time() - 100
    os.utime(locks / "0.output.lock", (before, before))


def note(folder, kind, name, age_s=0):
    path = resume.record_path(folder, kind, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    os.utime(path, (time.time() - age_s,) * 2)


def test_unrecorded_files(tmp_path):
    names = ["recorded", "orphan", "marked", "missing", "old", "replaced"]
    locked(tmp_path, *names)
    for name in names:
        if name != "missing":
            (tmp_path / name).write_text(name)
    os.utime(tmp_path / "old", (time.time() - 1000,) * 2)
    note(tmp_path, "metadata", "recorded")
    note(tmp_path, "incomplete", "marked")
    note(tmp_path, "metadata", "replaced", age_s=500)
    assert resume.unrecorded_files(tmp_path) == ["orphan", "replaced"]


def test_without_a_lock_there_are_no_orphans(tmp_path):
    (tmp_path / "tile").write_text("")
    assert resume.unrecorded_files(tmp_path) == []
    assert resume.adopt(tmp_path, [], []) == ([], [])


def test_long_names_are_split_as_in_snakemake(tmp_path):
    from snakemake.persistence.file import FilePersistence

    for length in (10, 189, 190, 191, 400, 900):
        name = "d/" * 20 + "x" * length
        own = resume.record_path(tmp_path, "metadata", name)
        theirs = FilePersistence._record_path(
            type("Stub", (), {"_fetch_max_len": lambda self, subject: 255})(),
            str(tmp_path / ".snakemake" / "metadata"),
            name,
        )
        assert str(own) == theirs


def test_arguments_after_two_dashes_are_for_snakemake():
    assert cli._split(["array", "--limit", "3", "--", "--config", "a=b"]) == (
        ["array", "--limit", "3"],
        ["--config", "a=b"],
    )
    assert cli._split(["table"]) == (["table"], [])


@pytest.mark.parametrize("limit", ["-1", "two", "1.5"])
def test_a_bad_limit(capsys, limit):
    with pytest.raises(SystemExit):
        cli.main(["array", f"--limit={limit}"])
    assert f"expected a whole number from 0, found '{limit}'" in capsys.readouterr().err


def test_an_unknown_argument(capsys):
    with pytest.raises(SystemExit):
        cli.main(["array", "--configfile", "my.yaml"])
    assert "arguments for Snakemake follow `--`" in capsys.readouterr().err


def test_without_slurm(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["array", "--directory", str(tmp_path)]) == 1
    assert "squeue: not found. Run this where SLURM's commands work" in capsys.readouterr().err


def test_job_numbers_of_sbatch(monkeypatch):
    answers = iter(["12\n", "13;north\n", "Welcome to the cluster!\n14\n"])
    monkeypatch.setattr(commands, "run", lambda *a, **k: next(answers))
    assert [commands.submit([], "") for _ in range(3)] == ["12", "13", "14"]
    monkeypatch.setattr(commands, "run", lambda *a, **k: "ok\n")
    with pytest.raises(VoxmillError, match="expected a job number, found 'ok'"):
        commands.submit([], "")


def test_only_jobs_of_this_folder_and_prefix_are_found(monkeypatch, tmp_path):
    rows = [
        ("1", "voxmill_a", "RUNNING", str(tmp_path)),
        ("2", "voxmill_a", "RUNNING", "/elsewhere"),
        ("3", "other_a", "PENDING", str(tmp_path)),
    ]
    text = "".join("\x1f".join(row) + "\n" for row in rows)
    monkeypatch.setattr(commands, "run", lambda *a, **k: text)
    assert [job.job_id for job in commands.jobs_of(tmp_path)] == ["1"]


def test_memory_of_the_jobs_before_and_after_the_arrays():
    def planned(*memories):
        return [PlannedJob("r", [], [], [], {"mem_mb": m}, 1) for m in memories]

    run = array.ArrayRun("/w", [], [], stage_cpus=4)
    assert array._stage_memory_mb(run, planned(100, 200, 300)) == 600
    assert array._stage_memory_mb(run, planned(*[8000] * 10)) == 16000
    assert array._stage_memory_mb(run, planned(64000, 100)) == 64000
    assert array._stage_memory_mb(run, []) == 0


def test_prefix_comes_from_the_profile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert commands.profile_prefix("slurm") == "voxmill"
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "config.yaml").write_text("slurm-jobname-prefix: brain\n")
    assert commands.profile_prefix("slurm") == "brain"


def test_a_job_that_does_not_end_when_asked_is_killed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(resume, "GRACE_S", 0.2)
    script = tmp_path / ".snakemake/scripts/job.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open('deaf', 'w').close()\nsignal.pause()\nsignal.pause()\n"
    )
    job = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path)
    while not (tmp_path / "deaf").exists():
        time.sleep(0.01)
    settings = resume.Resume(tmp_path, [], [], profile="", cancel="all", poll_s=0.1)
    resume._wait_for_local_jobs(settings)
    assert job.wait() == -signal.SIGKILL
    told = "1 job(s) of the killed run still run on this machine; stopping them ...\n"
    assert capsys.readouterr().out == told
