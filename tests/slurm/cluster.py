"""A real SLURM on this machine, in a private folder: a controller and nodes with fake GPUs.

    python tests/slurm/cluster.py    # prints the lines that a shell needs; Ctrl-C ends it

It reads and writes only files in the folder, listens only on this machine, and needs no systemd,
cgroups or root. A GPU is a link to /dev/null: SLURM allocates it and sets CUDA_VISIBLE_DEVICES as
for a real one.
"""

import contextlib
import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

MARK = "VOXMILL_TEST_CLUSTER"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol", "scancel")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db")
START_TIMEOUT_S = 90


class ClusterError(RuntimeError):
    """The cluster cannot be started; the message holds the end of the log."""


@dataclass
class Cluster:
    """One controller and `nodes` nodes, all on this machine.

    Attributes
    ----------
    folder : path
        Holds all files of the cluster. Its path must be short: paths of sockets in it have at most
        107 characters.
    nodes, gpus, cpus, memory_mb
        Number of nodes, and the resources of each, independent of this machine.
    max_array_size : int
        SLURM's MaxArraySize.
    accounting : bool
        Run slurmdbd with a private MariaDB, so that `sacct` and accounts work.
    """

    folder: Path
    nodes: int = 2
    gpus: int = 2
    cpus: int = 16
    memory_mb: int = 32000
    max_array_size: int = 1001
    accounting: bool = False
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        """The cluster's slurm.conf."""
        return self.folder / "slurm.conf"

    def environment(self) -> dict[str, str]:
        """Environment of a shell whose sbatch, squeue and so on talk to this cluster."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "CUDA_"))}
        return kept | {
            "SLURM_CONF": str(self.conf),
            "PATH": f"{self.folder / 'bin'}:/usr/sbin:{os.environ['PATH']}",
            MARK: str(self.folder),
        }

    def run(self, *command: str, check: bool = True, timeout_s: float = 60) -> str:
        """Standard output of a SLURM command on this cluster."""
        done = subprocess.run(
            command,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def start(self) -> "Cluster":
        """Start every daemon and wait until all nodes are idle.

        Raises
        ------
        ClusterError
            If a program is missing, a daemon ends, or a node does not come up in time.
        """
        missing = missing_programs(self.accounting)
        if missing:
            raise ClusterError(f"not installed: {', '.join(missing)} (see tests/install.sh slurm)")
        self.stop()
        for name in ("bin", "state", "spool", "log", "gpu"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        try:
            self._start_munge()
            ports = _free_ports(3 + self.nodes)
            if self.accounting:
                self._start_accounting(ports[2])
            self._write_configuration(ports)
            # -D keeps each daemon in the foreground, so that it is a child and ends with the test.
            self._spawn("slurmctld", "slurmctld", "-D", "-c", "-f", str(self.conf))
            for node in self.node_names():
                self._start_node(node)
            self._wait_until_idle()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the daemons and the processes of their jobs; repeated calls do nothing."""
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(5)
        self.daemons.clear()
        _kill_marked(self.folder)

    def node_names(self) -> list[str]:
        """Names of the nodes."""
        return [f"n{index + 1}" for index in range(self.nodes)]

    def kill_node(self, node: str) -> None:
        """Kill a node as a power failure would: its daemon and all its processes."""
        self.daemons.pop(f"slurmd-{node}").kill()
        _kill_marked(self.folder, f"VOXMILL_TEST_NODE={node}", f"SLURMD_NODENAME={node}")

    def restart_controller(self, after_s: float) -> None:
        """Stop the controller, as for maintenance, and start it again after a while.

        It gets SIGTERM, not SIGKILL: a controller killed within seconds of a submission has not
        saved the start of the job, and SLURM then starts the job a second time.
        """
        controller = self.daemons.pop("slurmctld")
        controller.terminate()
        controller.wait(30)
        time.sleep(after_s)
        self._spawn("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        self._wait_for("slurmctld", lambda: "UP" in self.run("scontrol", "ping", check=False))

    def _start_node(self, node: str) -> None:
        self._spawn(
            f"slurmd-{node}",
            "slurmd",
            *("-D", "-c", "-N", node, "-f", str(self.conf)),
            extra={"VOXMILL_TEST_NODE": node},
        )

    def _spawn(self, name: str, *command: str, extra: dict[str, str] | None = None) -> None:
        log = open(self.folder / "log" / f"{name}.out", "wb")  # noqa: SIM115 (the child keeps it)
        self.daemons[name] = subprocess.Popen(
            command,
            env=self.environment() | (extra or {}),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
            # Ctrl-C ends the tests; their teardown then ends the daemons.
            process_group=0,
        )
        log.close()

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.folder.chmod(0o755)
        self._spawn(
            "munged",
            "munged",
            *("--foreground", "--force", f"--socket={self.folder / 'munge.sock'}"),
            f"--key-file={key}",
            f"--seed-file={self.folder / 'munge.seed'}",
            f"--pid-file={self.folder / 'munge.pid'}",
            f"--log-file={self.folder / 'log' / 'munged.log'}",
        )
        self._wait_for("munged", (self.folder / "munge.sock").exists)

    def _start_accounting(self, port: int) -> None:
        database = self.folder / "database"
        database_socket = self.folder / "db.sock"
        user = getpass.getuser()
        subprocess.run(
            [
                *("mariadb-install-db", "--no-defaults", f"--datadir={database}"),
                *(f"--user={user}", "--auth-root-authentication-method=normal", "--skip-test-db"),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        self._spawn(
            "mariadbd",
            "mariadbd",
            *("--no-defaults", f"--datadir={database}", f"--socket={database_socket}"),
            *("--skip-networking", f"--user={user}", f"--pid-file={self.folder / 'db.pid'}"),
            *("--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"),
        )
        self._wait_for("mariadbd", database_socket.exists)
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(
            "AuthType=auth/munge\n"
            f"AuthInfo=socket={self.folder / 'munge.sock'}\n"
            "DbdHost=localhost\nDbdAddr=127.0.0.1\n"
            f"DbdPort={port}\nSlurmUser={user}\n"
            f"PidFile={self.folder / 'slurmdbd.pid'}\n"
            f"LogFile={self.folder / 'log' / 'slurmdbd.log'}\n"
            "StorageType=accounting_storage/mysql\nStorageHost=localhost\n"
            "StorageUser=root\nStorageLoc=slurm_acct_db\n"
        )
        conf.chmod(0o600)
        self._spawn(
            "slurmdbd",
            "slurmdbd",
            "-D",
            # slurmdbd reads its configuration in the folder of slurm.conf.
            extra={"MYSQL_UNIX_PORT": str(database_socket)},
        )
        self._wait_for("slurmdbd", lambda: _answers(port))

    def _write_configuration(self, ports: list[int]) -> None:
        host, user, folder = socket.gethostname().split(".")[0], getpass.getuser(), self.folder
        storage = (
            "AccountingStorageType=accounting_storage/none\nJobCompType=jobcomp/filetxt\n"
            f"JobCompLoc={folder / 'log' / 'jobcomp.log'}\n"
        )
        if self.accounting:
            storage = (
                "AccountingStorageType=accounting_storage/slurmdbd\n"
                f"AccountingStorageHost=127.0.0.1\nAccountingStoragePort={ports[2]}\n"
                f"AccountingStoragePass={folder / 'munge.sock'}\n"
                "AccountingStorageTRES=gres/gpu\nAccountingStoreFlags=job_comment\n"
                "AccountingStorageEnforce=associations,limits\n"
            )
        nodes = "".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs={self.cpus} RealMemory={self.memory_mb} Gres=gpu:v100:{self.gpus}\n"
            for name, port in zip(self.node_names(), ports[3:], strict=True)
        )
        self.conf.write_text(
            f"""ClusterName=voxmill
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder / "munge.sock"}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder / "state"}
SlurmdSpoolDir={folder / "spool"}/%n
SlurmctldPidFile={folder / "slurmctld.pid"}
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder / "log" / "slurmctld.log"}
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=300
GresTypes=gpu
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=10000,bf_interval=5
MinJobAge=7200
MaxArraySize={self.max_array_size}
SlurmdTimeout=15
SlurmctldTimeout=15
MessageTimeout=10
KillWait=2
OverTimeLimit=0
InactiveLimit=0
{storage}{nodes}PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
        )
        gres = ""
        for name in self.node_names():
            links = [folder / "gpu" / f"{name}-{index}" for index in range(self.gpus)]
            for link in links:
                link.unlink(missing_ok=True)
                # A regular file would leave CUDA_VISIBLE_DEVICES empty.
                link.symlink_to("/dev/null")
            gres += "".join(f"NodeName={name} Name=gpu Type=v100 File={link}\n" for link in links)
        (folder / "gres.conf").write_text(gres)
        wrapper = folder / "bin" / "srun"
        # The jobstep executor removes all SLURM_ variables, even SLURM_CONF, before it calls srun.
        wrapper.write_text(
            f'#!/bin/sh\nexport SLURM_CONF={self.conf}\nexec {shutil.which("srun")} "$@"\n'
        )
        wrapper.chmod(0o755)

    def _wait_until_idle(self) -> None:
        def idle() -> bool:
            states = self.run("sinfo", "--noheader", "-N", "-o", "%N %t", check=False).split("\n")
            return sum(line.endswith(" idle") for line in states) == self.nodes

        self._wait_for("slurmctld", idle)

    def _wait_for(self, name: str, ready) -> None:
        end = time.monotonic() + START_TIMEOUT_S
        while not ready():
            dead = [n for n, daemon in self.daemons.items() if daemon.poll() is not None]
            if dead:
                raise ClusterError(f"{dead[0]} ended: {self._log_end(dead[0])}")
            if time.monotonic() > end:
                raise ClusterError(
                    f"{name} not ready in {START_TIMEOUT_S} s: {self._log_end(name)}"
                )
            time.sleep(0.05)

    def _log_end(self, name: str) -> str:
        texts = []
        for suffix in ("log", "out"):
            with contextlib.suppress(OSError):
                texts.append((self.folder / "log" / f"{name}.{suffix}").read_text()[-1500:])
        return "\n".join(text for text in texts if text) or "(the log is empty)"


def missing_programs(accounting: bool = False) -> list[str]:
    """Programs of SLURM that are not installed on this machine."""
    path = f"/usr/sbin:{os.environ['PATH']}"
    wanted = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    return [program for program in wanted if shutil.which(program, path=path) is None]


def base_folder() -> Path:
    """Folder of this user's test clusters; each has a subfolder named by its owner's process id."""
    return Path(f"/tmp/voxmill-slurm-{os.getuid()}")


def sweep() -> None:
    """End the clusters of killed test runs and remove their folders."""
    for folder in base_folder().glob("*"):
        owner = folder.name.split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _kill_marked(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent() -> None:
    """Let the kernel end this child when the test process ends for any reason."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _kill_marked(folder: Path, *also: str) -> None:
    """Kill the processes whose environment names this cluster (and one of `also`, if given)."""
    mark = f"{MARK}={folder}".encode()
    wanted = [text.encode() for text in also]
    for _ in range(5):
        found = []
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            try:
                variables = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark in variables and (not wanted or any(text in variables for text in wanted)):
                found.append(int(process.name))
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    """Find unused ports of the loopback interface."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _interrupt(number, frame) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Run a cluster for a shell until Ctrl-C."""
    sweep()
    cluster = Cluster(base_folder() / str(os.getpid()), accounting="--accounting" in arguments)
    started = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        cluster.start()
    except ClusterError as error:
        print(f"The cluster did not start: {error}", file=sys.stderr)
        return 1
    print(f"# up in {time.monotonic() - started:.1f} s; in another shell:")
    print(f"export SLURM_CONF={cluster.conf} PATH={cluster.folder / 'bin'}:/usr/sbin:$PATH")
    print("# Ctrl-C here ends it", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cluster.stop()
        shutil.rmtree(cluster.folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
