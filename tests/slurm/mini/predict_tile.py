"""Make a tile with the time, memory and number of attempts that the configuration sets."""

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
            memory = bytearray(behaviour["allocate_mb"] * 2**20)
            memory[::4096] = b"x" * len(memory[::4096])
            # The test cluster checks memory once a second.
            time.sleep(30)
        seconds = behaviour.get("sleep_s", 0)
        if earlier < behaviour.get("slow_attempts", 0):
            seconds = behaviour["slow_s"]
        time.sleep(seconds)
        if earlier < behaviour.get("fail_attempts", 0):
            sys.exit(f"set to fail in attempt {earlier + 1}")
        scratch.write_text(f"prediction of {Path(snakemake.input.tile).read_text()}")  # noqa: F821
