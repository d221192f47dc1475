"""Join the tiles' texts."""

from pathlib import Path

if __name__ == "__main__":
    tiles = [Path(path).read_text() for path in snakemake.input.predictions]  # noqa: F821
    Path(snakemake.output.probability).write_text("".join(tiles))  # noqa: F821
