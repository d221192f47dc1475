"""The library on disk, where Snakemake reads this workflow from git, as a module of another one."""


def from_git(folder):
    """Put a copy of the commit that the workflow is read from on sys.path."""
    import sys
    import tarfile
    import tempfile
    from pathlib import Path

    # Snakemake keeps a bare clone, from which it reads Snakefiles and scripts one by one.
    repository = folder.hosted_repo.repo
    commit = repository.commit(folder.ref)
    library = workflow.sourcecache.cache_path / "voxmill" / commit.hexsha
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            packed, copy = Path(scratch, "packed.tar"), Path(scratch, "copy")
            with open(packed, "wb") as file:
                repository.archive(file, commit)
            with tarfile.open(packed) as archive:
                # Python 3.11.2, Debian's, has no filters yet, and takes no argument for one.
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                archive.extractall(copy)
            try:
                copy.rename(library)
            except OSError:
                # Another job was first.
                if not library.exists():
                    raise
    sys.path.insert(0, str(library))


if hasattr(workflow.current_basedir, "hosted_repo"):
    from_git(workflow.current_basedir)
