"""Verify the files of a run, and remove what is broken, so that the next run makes just that."""
