"""What every job needs, whatever it computes; nothing here knows the library's other packages.

`jobs` (log, progress, overlapped work), `records` (what a job leaves behind), `files` (outputs that
are whole or absent), `devices` (which GPUs a job may use), `free_memory`, `cpu`, `digests` (of the
source code, for reruns) and `errors`.
"""
