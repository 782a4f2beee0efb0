"""Out of memory is one line and status 1, a killed worker too; nothing half-written stays, and then it goes on."""

from __future__ import annotations

import pytest

from tests.conftest import World

from .jobs import Job, artifacts

VERBS = ("index", "parts", "pixels", "latents", "features", "inpaint", "train", "evaluate", "judge", "table", "efficiency",
         "figure", "gallery", "ablation", "report", "schema", "demo-model", "demo-data", "verify", "plan", "doctor")  # fmt: skip
LIMITS = (0, 1, 4, 16, 64, 256)
"""MB of address space beyond what a process has once the libraries are imported."""


@pytest.mark.parametrize("name", VERBS)
def test_x(name, jobs, undisturbed, world: World, tmp_path, capsys):
    settings = world.settings.model_dump_json()
    more = {
        "verify": Job("verify", ("verify", str(world.root))),
        "plan": Job("plan", ("plan", "--settings", settings)),
        "doctor": Job("doctor", ("doctor", "--settings", settings)),
    }
    import time

    job = (jobs | more)[name]
    for n, limit in enumerate(LIMITS):
        out, log = tmp_path / str(n), tmp_path / f"{n}.log"
        t = time.time()
        status = job.run(out, log, limit << 20)
        said = log.read_text()
        with capsys.disabled():
            print(
                name,
                limit,
                "->",
                status,
                round(time.time() - t, 1),
                "TRACE" if "Traceback" in said else "",
                said.splitlines()[-1:],
                len(said.splitlines()),
                list(artifacts(out)) if status else "",
            )
            if "Traceback" in said:
                print(said[-2500:])
