"""Disks without file locks, as some network disks are: files are written and read all the same; devices are locked elsewhere."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import World
from tests.library import compiled

NO_LOCKS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int flock(int descriptor, int operation) {
    char link[64], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    if (readlink(link, path, sizeof path - 1) < 0 || strncmp(path, getenv("NO_LOCKS"), strlen(getenv("NO_LOCKS"))))
        return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(descriptor, operation);
    errno = atoi(getenv("NO_LOCKS_ERRNO"));
    return -1;
}
"""
WORK = """
import sys
from pathlib import Path
import numpy as np
from dfeat.data.pixels import PixelCache, cache_index
from dfeat.data.settings import PixelsStage
from dfeat.storage.atomic import mark_under_way, under_way
from dfeat.storage.journal import journal_of
from dfeat.storage.shards import Shard, read_attributes, read_rows, read_shard, write_shard
index, disk = Path(sys.argv[1]), Path(sys.argv[2])
shard = Shard("features", 1, {}, "m" * 64, ["a", "b"], np.ones((2, 4), np.float16))
mark_under_way(disk)
with journal_of(disk / "a.h5", shard) as journal:
    journal.add({"a": shard.payload[0], "b": shard.payload[1]}, 2)
    write_shard(disk / "a.h5", shard)
assert read_shard(disk / "a.h5", "features").keys == sorted(read_rows([disk / "a.h5"], "features").row_of) == ["a", "b"]
assert read_attributes(disk / "a.h5")["rows"] == 2
cache_index(index, PixelsStage(short_side=32), disk / "pixels.h5")
assert len(PixelCache(disk / "pixels.h5").keys) > 2
assert not under_way(disk)  # nothing can tell
assert not [path for path in disk.iterdir() if "journal" in path.name]
from dfeat.devices.leases import lease, occupancy
from dfeat.errors import UserError
for devices in (occupancy, lambda: lease(1, "train x")):
    try:
        print(devices())
    except UserError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library in which flock() fails for every file under the folder $NO_LOCKS."""
    return compiled(NO_LOCKS, tmp_path_factory.mktemp("locks") / "locks.so", "-ldl")


@pytest.mark.parametrize(
    "number", [errno.EAGAIN, errno.EOPNOTSUPP, pytest.param(errno.ENOSYS, marks=pytest.mark.slow)]
)  # fmt: skip
def test_a_run_needs_no_locks_of_its_disk_and_devices_are_refused_there(
    number: int, library: Path, world: World, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    hidden = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "DFEAT_SLOTS", "HDF5_USE_FILE_LOCKING")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "LD_PRELOAD": str(library),
        "NO_LOCKS": str(disk),
        "NO_LOCKS_ERRNO": str(number),
        "DFEAT_DEVICES": "GPU-a",
        "DFEAT_LEASES": str(disk / "leases"),
    }
    command = [sys.executable, "-c", WORK, str(world.train), str(disk)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    refused = f"cannot lock devices in {disk / 'leases'} ({os.strerror(number)}): its file system has no locks; set DFEAT_LEASES to a folder of this machine"
    assert done.stdout.splitlines() == [refused, refused]
