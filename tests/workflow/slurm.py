"""A real SLURM on this machine: a controller and two nodes with two pretended GPUs each, from Debian's packages.

    python -m tests.workflow.slurm install     # the packages, where apt-get may install them
    python -m tests.workflow.slurm up FOLDER   # start; then `. FOLDER/env`, and at the end `down`
    python -m tests.workflow.slurm down FOLDER

All state is in FOLDER, the daemons run as the user who starts them, and no file of the system is changed.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel", "sinfo")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
NODES, GPUS = ("n1", "n2"), 2

CONFIG = """\
ClusterName=dfeat
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/run/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=1
KillWait=5
ReturnToService=2
MinJobAge=3600
MpiDefault=none
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=16000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=16000 Gres=gpu:2
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE DefMemPerCPU=500
"""


def missing() -> list[str]:
    """The programs that are not here; none where SLURM can be started."""
    return [name for name in NEEDED if shutil.which(name, path=SEARCH) is None]


def install() -> str:
    """Install the packages; a sentence where that cannot be done, else an empty one."""
    if not missing():
        return ""
    if shutil.which("apt-get") is None:
        return f"SLURM is not here, and neither is apt-get to install {' '.join(PACKAGES)}"
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
    try:
        subprocess.run([*root, "apt-get", "update", "-qq"], check=True, **quiet)  # type: ignore[call-overload]
        command = [*root, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
        subprocess.run(command, check=True, **quiet)  # type: ignore[call-overload]
    except (OSError, subprocess.CalledProcessError) as error:
        return f"could not install {' '.join(PACKAGES)} ({error})"
    return ""


def start(folder: Path) -> dict[str, str]:
    """Start the daemons in `folder`; returns the environment to run SLURM's commands with."""
    for name in ("etc", "state", "run", "log", "dev", "bin", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for number in range(GPUS):  # the pretended GPUs must be device nodes
        (folder / f"dev/nvidia{number}").symlink_to("/dev/null")
    key = folder / "etc/munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    config = folder / "etc/slurm.conf"
    config.write_text(CONFIG.format(host=host, user=user, folder=folder, ports=free_ports(3)))
    (folder / "etc/gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={folder}/dev/nvidia[0-{GPUS - 1}]\n")
    # Snakemake clears SLURM's variables for its job steps, this one included, which names where the cluster is.
    srun = folder / "bin/srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={config} exec {shutil.which("srun", path=SEARCH)} "$@"\n')
    srun.chmod(0o755)
    environment = os.environ | {"SLURM_CONF": str(config), "PATH": f"{folder}/bin{os.pathsep}{SEARCH}"}
    run = ("munge.socket", "munged.pid", "munge.seed", "munged.log")
    files = dict(
        zip(("socket", "pid-file", "seed-file", "log-file"), (folder / "run" / name for name in run), strict=True)
    )
    munged = ["munged", "--force", f"--key-file={key}", *(f"--{name}={path}" for name, path in files.items())]
    for command in (munged, ["slurmctld"], *(["slurmd", "-N", node] for node in NODES)):
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    (folder / "env").write_text(
        f"export SLURM_CONF={config} PATH={folder}/bin:/usr/sbin:$PATH\n",
    )
    _wait_for_nodes(environment, folder)
    return environment


def _wait_for_nodes(environment: dict[str, str], folder: Path) -> None:
    for _ in range(240):
        seen = subprocess.run(
            ["sinfo", "-h", "-t", "idle", "-o", "%D"], env=environment, capture_output=True, text=True
        )
        if seen.stdout.strip() == str(len(NODES)):
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-2000:] for path in sorted((folder / "log").glob("*.log")))
    stop(folder)
    raise RuntimeError(f"SLURM did not come up within two minutes\n{logs}")


def stop(folder: Path) -> None:
    """End the daemons that run in `folder`."""
    for file in (folder / "run").glob("*.pid"):
        try:
            os.kill(int(file.read_text()), signal.SIGTERM)
        except (OSError, ValueError):
            continue


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["install"]:
            if reason := install():
                print(f"{reason}; the tests that need SLURM are skipped", file=sys.stderr)
        case ["up", folder]:
            start(Path(folder).resolve())
        case ["down", folder]:
            stop(Path(folder).resolve())
        case _:
            sys.exit(__doc__)
