"""Check SLURM's queue every two seconds, in test runs only.

The executor plugin adds ten seconds to its interval whenever no job has finished; the jobs of the
tests take seconds, so the tests would mostly wait. Python imports this module at its start if this
folder is on PYTHONPATH.
"""

import sys

if "--profile" in sys.orig_argv and "--mode" not in sys.orig_argv:
    import asyncio

    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    async def sleep(self):
        await asyncio.sleep(2)

    RemoteExecutor.sleep = sleep
