"""Leases of this machine's GPUs: an advisory lock (flock) for each device and slot, in a folder of the machine.

A lock file is named by the device's UUID, which unlike its number is the same for every process, whatever
CUDA_VISIBLE_DEVICES says. Its descriptor stays open as long as the process lives, so the kernel releases the lock however
the process ends. Devices that a scheduler assigned are taken as they are, without a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import random
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from dfeat.devices.driver import Device, machine_devices, visible_devices, visible_entries
from dfeat.errors import MachineError, UserError
from dfeat.progress import say

SCHEDULERS: Final = {
    "SLURM_JOB_ID": "SLURM",
    "PBS_JOBID": "PBS",
    "LSB_JOBID": "LSF",
    "FLUX_JOB_ID": "Flux",
    "SGE_TASK_ID": "Grid Engine",
    "_CONDOR_JOB_AD": "HTCondor",
}
"""A variable that a scheduler sets in its jobs, and the scheduler."""
PARTS: Final = ("SLURM_SHARDS_ON_NODE", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE")
"""Variables that SLURM sets in a job to which it assigned a part of a device: a shard, or a share of MPS."""

_held: dict[Path, int] = {}
"""Locks this process holds and their descriptors, which stay open until it ends."""
_taken: list[Device] = []


@dataclass(frozen=True)
class Holder:
    """Who holds a slot of a device."""

    job: str
    pid: int
    user: str
    since: str

    def __str__(self) -> str:
        return f"dfeat {self.job} (process {self.pid} of {self.user}, since {self.since})"


def lease(count: int, job: str) -> list[Device]:
    """Lease `count` devices for the life of this process, all or none; wait, and log it, while others hold them.

    Sets CUDA_VISIBLE_DEVICES to them and returns them; an empty list if the machine has none. `job` is recorded in the
    locks and shown to the jobs that wait for them. Raises UserError if the machine has devices, but fewer than `count`, and
    MachineError if its driver does not work.
    """
    if _taken:
        return list(_taken)
    assigned = _assigned(count)
    if assigned is not None:
        return assigned
    devices = visible_devices()
    if not devices:
        return []
    if len(devices) < count:
        raise UserError(f"{job} asks for {count} devices and may use {len(devices)} here; lower training.gpus")
    _taken.extend(_wait_for(count, devices, job))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(device.uuid for device in _taken)
    return list(_taken)


def occupancy() -> list[tuple[Device, int, str | None]]:
    """(device, slot, holder) of every slot of this machine; the holder of a free slot is None."""
    held = []
    for device in machine_devices():
        for slot in range(_slots()):
            lock = _lock_of(device, slot)
            held.append((device, slot, _holder(lock) if _busy(lock) else None))
    return held


def jobs_at_once() -> int:
    """How many GPU jobs this machine runs at once: its devices times their slots, or its cores if it has no device.

    One where the driver does not work: that job tells why, and what needs no device goes on.
    """
    try:
        return len(visible_devices()) * _slots() or os.cpu_count() or 1
    except MachineError:
        return 1


def why_none() -> str:
    """Why this process may use no device, in a few words."""
    wanted, scheduler = os.environ.get("CUDA_VISIBLE_DEVICES"), _scheduler()
    if wanted and scheduler and not visible_entries(wanted):
        return f"{scheduler} assigned it no GPU (CUDA_VISIBLE_DEVICES={wanted})"
    if wanted and machine_devices():
        return f"CUDA_VISIBLE_DEVICES={wanted} allows no GPU of this machine, which has {len(machine_devices())}"
    return "no GPU was found"


def shared() -> bool:
    """Whether other jobs may use this job's devices at the same time, by slots or as the scheduler assigned them."""
    return _slots() > 1 or any(variable in os.environ for variable in PARTS)


def _assigned(count: int) -> list[Device] | None:
    """The devices that a scheduler assigned to this job, which may be none; None if it assigns none, or more than `count`."""
    scheduler, wanted = _scheduler(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if scheduler is None or not wanted:
        return None
    entries = visible_entries(wanted)
    if len(entries) > count:
        return None
    if 0 < len(entries) < count:
        raise UserError(
            f"the job wants {count} devices and {scheduler} assigned it {len(entries)}; ask it for {count}, by gpu={count} "
            "or resources.request"
        )
    return [Device(entry, f"assigned by {scheduler}") for entry in entries]


def _scheduler() -> str | None:
    """The scheduler whose job this is, if it is one's."""
    return next((name for variable, name in SCHEDULERS.items() if variable in os.environ), None)


def _wait_for(count: int, devices: Sequence[Device], job: str) -> list[Device]:
    """Lease `count` of the devices, waiting as long as necessary.

    Each attempt is made under the lock `turn`. A job that needs one device releases it after each attempt; a job that
    needs several keeps it until it has them all, so that jobs that need one cannot starve it.
    """
    said, started, pause = "", time.monotonic(), 0.1
    locks = [(device, _lock_of(device, slot)) for slot in range(_slots()) for device in devices]
    turn = _folder() / "turn.lock"
    while True:
        taken = _attempt(count, locks, job) if turn in _held or _hold(turn, job) else []
        if taken or count == 1:
            _give_back([turn])
        if taken:
            if said:
                say(f"{job} waited {time.monotonic() - started:.0f} s")
            return taken
        holders = dict.fromkeys(_holder(lock) for _, lock in locks if _busy(lock))
        line = f"{job} waits for {count} of {len(devices)} devices, held by {'; '.join(holders)}"
        if holders and line != said:
            said = line
            say(line)
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(1.0, 1.5 * pause)


def _attempt(count: int, locks: Sequence[tuple[Device, Path]], job: str) -> list[Device]:
    """Try once to lock `count` different devices; if there are fewer, release them and return an empty list.

    Looks before it locks, so that a job that waits for several never holds the free ones, not even for a moment.
    """
    taken: dict[Device, Path] = {}
    if len({device for device, lock in locks if not _busy(lock)}) < count:
        return []
    for device, lock in locks:
        if len(taken) < count and device not in taken and _hold(lock, job):
            taken[device] = lock
    if len(taken) == count:
        return list(taken)
    _give_back(taken.values())
    return []


def _hold(lock: Path, job: str) -> bool:
    """Take a lock for the life of this process; return False if another process holds it."""
    descriptor = _open(lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(lock.stat(), os.fstat(descriptor)):
            raise FileNotFoundError  # the folder was cleaned between opening and locking
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        return False
    holder = Holder(job, os.getpid(), _user(), datetime.now().isoformat(" ", "seconds"))
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)
    _held[lock] = descriptor
    return True


def _give_back(locks: Iterable[Path]) -> None:
    for lock in locks:
        descriptor = _held.pop(lock, None)
        if descriptor is not None:
            os.close(descriptor)


def _busy(lock: Path) -> bool:
    """Whether a process holds the lock, this one included."""
    if lock in _held:
        return True
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _holder(lock: Path) -> str:
    """The holder that is recorded in the lock, as text."""
    try:
        return str(Holder(**json.loads(lock.read_text())))
    except (OSError, ValueError, TypeError):
        return "a process that has just started"


def _open(lock: Path) -> int:
    """Open a lock file, which every user of this machine may open.

    In a sticky folder that all may write to, the kernel rejects O_CREAT on another user's file (fs.protected_regular),
    so it is opened without O_CREAT first.
    """
    refused: OSError | None = None
    for create in (0, os.O_CREAT, 0):
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | create, 0o666)
        except OSError as error:
            refused = error
            continue
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, 0o666)
        return descriptor
    raise UserError(f"cannot lock devices with {lock} ({refused}); set DFEAT_LEASES to a folder of this machine")


def _lock_of(device: Device, slot: int) -> Path:
    return _folder() / f"{re.sub(r'[^A-Za-z0-9-]', '_', device.uuid)}.{slot}.lock"


def _folder() -> Path:
    """The folder of this machine's locks; not in TMPDIR, which schedulers set for each job."""
    folder = Path(os.environ.get("DFEAT_LEASES") or "/tmp/dfeat-devices")
    if not folder.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o1777)
        except OSError as error:
            raise UserError(f"cannot make {folder} ({error}); set DFEAT_LEASES to a folder of this machine") from None
    _check_locks(folder)
    return folder


@cache
def _check_locks(folder: Path) -> None:
    """Refuse a folder whose file system has no locks, by a file of this process alone."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(TemporaryFile(dir=folder))
        except OSError:
            return  # a folder of another user, whose locks may be open to all
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"cannot lock devices in {folder} ({error.strerror}): its file system has no locks; set DFEAT_LEASES to a "
                "folder of this machine"
            ) from None


def _slots() -> int:
    text = os.environ.get("DFEAT_SLOTS") or "1"
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise UserError(
            f"DFEAT_SLOTS is {text!r}; it must be a whole number from 1 to 64, the jobs that share a device"
        )
    return int(text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
