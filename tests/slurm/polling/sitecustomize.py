"""Look at SLURM's queue every two seconds, in test runs only.

The executor plugin lengthens its interval by ten seconds whenever nothing has finished; the tests'
jobs take seconds, and would wait for the next look most of the time. Python imports this module at
its start where this folder is on PYTHONPATH.
"""

import sys

if "--profile" in sys.orig_argv and "--mode" not in sys.orig_argv:
    import asyncio

    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    async def sleep(self):
        await asyncio.sleep(2)

    RemoteExecutor.sleep = sleep
