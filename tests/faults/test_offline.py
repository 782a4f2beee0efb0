"""Nothing is fetched at run time, but a model that is named by its Hub id, and that by huggingface_hub alone."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dfeat.diffusion.layout import find_model
from dfeat.diffusion.settings import ModelSource
from dfeat.errors import UserError
from tests.conftest import TINY_BACKBONE

from .conftest import Tried
from .jobs import Job, artifacts

PACKAGE = Path(__file__).parents[2] / "dfeat"
NETWORK = {"socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "huggingface_hub", "telnetlib", "smtplib"}  # fmt: skip


def test_only_the_door_for_weights_may_reach_the_network() -> None:
    """And it does so through huggingface_hub; `socket` gives the name of this host, `urllib.parse` quotes links."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {(path.relative_to(PACKAGE).as_posix(), name) for name in names if name.split(".")[0] in NETWORK}
    by_module = {name for _, name in found if name.partition(".")[0] != "huggingface_hub"}
    assert by_module <= {"socket", "urllib.parse"}, found
    reaching = {path for path, name in found if name.startswith("huggingface_hub")}
    assert reaching == {"hub.py"}
    for path in {path for path, name in found if name == "socket"}:
        used = {node.attr for node in ast.walk(ast.parse((PACKAGE / path).read_text()))
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "socket"}  # fmt: skip
        assert used <= {"gethostname"}, f"{path} uses {used} of socket"


def test_a_hub_id_wants_a_revision_and_offline_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tried: Tried) -> None:
    with pytest.raises(UserError, match=r"set diffusion\.model\.revision to a commit"):
        find_model(ModelSource(path="someone/model"))
    from huggingface_hub import constants

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(
        UserError, match=r"cannot fetch someone/model at a{40} .*run `dfeat fetch` where there is a network"
    ):
        find_model(ModelSource(path="someone/model", revision="a" * 40))
    tried("network off", 1, "one sentence")


def test_a_model_in_the_cache_is_found_offline(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Tried
) -> None:
    """The layout of huggingface_hub's own cache, as a download on another machine leaves it."""
    import shutil

    from huggingface_hub import constants

    revision = "a" * 40
    cached = tmp_path / "models--someone--model"
    shutil.copytree(tiny_models["four"], cached / "snapshots" / revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    files = find_model(ModelSource(path="someone/model", revision=revision))
    assert files.folder == cached / "snapshots" / revision
    assert files.digests()
    tried("network off", 1, "model found in the cache, digest recorded")


def test_timms_weights_in_the_cache_are_found_offline_and_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Tried
) -> None:
    from huggingface_hub import constants
    from safetensors.torch import save_file
    from timm import create_model

    from dfeat.storage.provenance import file_digest
    from dfeat.training.network import build_backbone
    from dfeat.training.settings import Backbone
    from dfeat.training.weights import weights_file

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    kwargs = TINY_BACKBONE["kwargs"]
    backbone = Backbone(name="convnext_atto.d2_in1k", kwargs=kwargs, revision="b" * 40)
    with pytest.raises(UserError, match=r"cannot fetch the weights of convnext_atto\.d2_in1k from timm/convnext_atto"):
        build_backbone(backbone)
    cached = tmp_path / "models--timm--convnext_atto.d2_in1k" / "snapshots" / ("b" * 40) / "model.safetensors"
    cached.parent.mkdir(parents=True)
    state = create_model("convnext_atto", num_classes=1000, **kwargs).state_dict()
    save_file(state, cached)
    assert file_digest(weights_file(backbone)) == file_digest(cached)
    loaded = build_backbone(backbone).state_dict()
    assert loaded["stem.0.weight"].equal(state["stem.0.weight"])
    with pytest.raises(UserError, match="cannot fetch"):
        build_backbone(backbone.model_copy(update={"revision": "c" * 40}))
    tried("network off", 1, "model found in the cache, digest recorded")


def without_network() -> list[str]:
    """Words before a command that take the network away from it; the test is skipped where that is not allowed."""
    words = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("a process cannot be put into a network of its own here (unshare is not allowed)")
    return words


@pytest.mark.parametrize("verb", ["index", "latents", "features"])
def test_a_verb_without_a_network_does_the_same(
    verb: str, jobs: dict[str, Job], undisturbed, tmp_path: Path, tried: Tried
) -> None:
    words = [word.replace("{out}", str(tmp_path / "out")) for word in jobs[verb].arguments]
    command = [*without_network(), sys.executable, "-m", "dfeat.cli", *words]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "HF_HOME": str(tmp_path / "empty")}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    assert artifacts(tmp_path / "out") == artifacts(undisturbed(verb))
    tried("network off", 1, "results as with it")
