"""A tile that takes as long, as much memory and as many attempts as it is told."""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from voxmill.runtime import devices, files, records

if __name__ == "__main__":
    behaviour = json.loads(snakemake.params.behaviour)  # noqa: F821
    output = Path(snakemake.output.prediction)  # noqa: F821
    record_path = records.record_path(snakemake.log[0])  # noqa: F821
    earlier = record_path.read_text().count('"event": "start"') if record_path.exists() else 0
    with (
        devices.claim(snakemake.resources.gpu, "auto", record_path, str(output)) as held,  # noqa: F821
        files.writing(output) as scratch,
    ):
        print(f"attempt {earlier + 1} on {held.node}, GPU {held.visible}", file=sys.stderr)
        if earlier < behaviour.get("allocate_attempts", 0):
            hoard = bytearray(behaviour["allocate_mb"] * 2**20)
            hoard[::4096] = b"x" * len(hoard[::4096])
            # The test cluster looks at memory once a second; a control group would not wait.
            time.sleep(30)
        seconds = behaviour.get("sleep_s", 0)
        if earlier < behaviour.get("slow_attempts", 0):
            seconds = behaviour["slow_s"]
        time.sleep(seconds)
        if earlier < behaviour.get("fail_attempts", 0):
            sys.exit(f"told to fail in attempt {earlier + 1}")
        scratch.write_text(f"prediction of {Path(snakemake.input.tile).read_text()}")  # noqa: F821
