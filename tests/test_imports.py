"""What a verb imports: half of a small job's time is the start of its libraries, so each has those alone that it works with.

By names of modules, not by seconds. diffusers imports transformers, torchvision and scipy by itself, and timm torchvision;
torchvision imports the compiler. So verbs that use neither must not import them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfeat.storage.provenance import as_argument
from tests.conftest import World

DRAWING = {"matplotlib", "pandas", "vl_convert", "itables", "jinja2"}
COMPILER = {"torch._dynamo", "torch._inductor", "sympy", "triton"}
MODELS = {"diffusers", "transformers", "accelerate", "timm", "torchvision", "scipy", "scipy.stats"}
TORCH = {"torch"} | COMPILER | MODELS
ROOMS = {
    "the command line": ("dfeat.cli", TORCH | DRAWING | {"numpy", "h5py", "PIL", "pydantic", "yaml"}),
    "index parts pixels": ("dfeat.data.indexing dfeat.occlusion.parts dfeat.data.pixels", TORCH | DRAWING),
    "table": (
        "dfeat.report.made dfeat.report.tables.published dfeat.report.tables.controls dfeat.report.tables.efficiency "
        "dfeat.report.claims.claims dfeat.report.tables.label_preservation",
        TORCH | DRAWING,
    ),
    "figure": (
        "dfeat.report.made dfeat.report.figures.curves dfeat.report.figures.examples dfeat.report.figures.maps",
        TORCH | DRAWING - {"matplotlib"},
    ),
    "report": ("dfeat.report.page.page", TORCH | DRAWING - {"jinja2", "itables", "vl_convert"}),
    "plan doctor verify adopt status": (
        "dfeat.costs.plan dfeat.doctor dfeat.verify dfeat.adopt dfeat.status.text",
        TORCH | DRAWING,
    ),
    "the verbs that compute, before they load a model": (
        "dfeat.diffusion.inpaint dfeat.diffusion.latents dfeat.diffusion.features dfeat.training.loop "
        "dfeat.evaluation.predict dfeat.evaluation.judge",
        COMPILER | MODELS | DRAWING,
    ),
}
"""What is imported for a verb, and what must not be."""
RUN = """\
import atexit, pathlib, sys
from dfeat.cli import main
seen = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: seen.write_text("\\n".join(sys.modules)))
main()
"""


@pytest.mark.parametrize("verb", ROOMS)
def test_a_verb_imports_what_it_works_with(verb: str) -> None:
    modules, strange = ROOMS[verb]
    code = f"import sys, {', '.join(modules.split())}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not strange & set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["latents", "features", "train"])
def test_a_job_imports_nothing_for_other_verbs(verb: str, world: World, tmp_path: Path) -> None:
    index, one = str(world.train), ["--threads", "1", "--gpus", "0"]
    encode = ["latents", "--index", index, "--view", "clean", "--settings", as_argument(world.stage("latents")), *one]
    extract = [
        "features",
        "--latents",
        str(tmp_path / "latents"),
        "--settings",
        as_argument(world.stage("features")),
        *one,
    ]
    pixels = ["pixels", "--index", index, "--out", str(tmp_path / "pixels.h5")]
    learn = [
        "train", "--method", "none", "--seed", "0", "--index", index, "--pixels", str(tmp_path / "pixels.h5"),
        "--parts", str(world.parts), "--settings", as_argument(world.stage("train", "convnext")), *one,
    ]  # fmt: skip
    before = {"latents": [], "features": [[*encode, "--out", str(tmp_path / "latents")]], "train": [pixels]}[verb]
    for words in before:
        imported(words, tmp_path / "before")
    words = {"latents": encode, "features": extract, "train": learn}[verb]
    seen = imported([*words, "--out", str(tmp_path / "out")], tmp_path / "seen")
    assert not (DRAWING - {"jinja2"}) & seen  # transformers has templates of chats
    assert not ({"diffusers", "transformers", "scipy"} if verb == "train" else {"timm"}) & seen


def imported(words: list[str], seen: Path) -> set[str]:
    """The modules that a verb had imported when it ended."""
    command = [sys.executable, "-c", RUN, str(seen), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return set(seen.read_text().split())
