"""`dfeat fetch` against a stand-in for the Hub: what a user gets, whatever the Hub and the network do."""

from __future__ import annotations

import re
import resource
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from dfeat import hub
from dfeat.config import Settings
from dfeat.config.files import PINNED, read_settings
from dfeat.config.run import ablation_points
from dfeat.diffusion.layout import find_model
from dfeat.errors import MachineError, UserError
from dfeat.fetch import fetch
from dfeat.section import parse
from dfeat.training.weights import weights_file

from .conftest import CPU, TINY_BACKBONE
from .hub import StandIn, files_in

SD, CONVNEXT = "someone/tiny-diffusion", "timm/convnext_atto.d2_in1k"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def timm_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as timm has it on the Hub."""
    from timm import create_model

    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    save_file(create_model("convnext_atto", num_classes=1000, **TINY_BACKBONE["kwargs"]).state_dict(), path)  # type: ignore[arg-type]
    return path


@pytest.fixture
def online(online: StandIn, here: Path, tiny_models: dict[str, Path], timm_weights: Path) -> StandIn:
    """The stand-in with the repositories of the run's models, and what lies beside the weights in real ones."""
    beside = {
        "README.md": b"# tiny",
        "safety_checker/model.safetensors": b"no",
        "vae/diffusion_pytorch_model.bin": b"no",
    }
    online.add(SD, files_in(tiny_models["four"]) | beside | {UNET.replace(".safe", ".fp16.safe"): b"half"})
    weights = timm_weights.read_bytes()
    online.add(CONVNEXT, {"model.safetensors": weights, "pytorch_model.bin": b"pickle", "config.json": b"{}"})
    return online


def settings(**changes: Any) -> Settings:
    backbone = {"name": "convnext_atto.d2_in1k", "kwargs": TINY_BACKBONE["kwargs"]}
    mapping: dict[str, Any] = {
        "diffusion": {"model": {"path": SD}, "resolution": 64},
        "training": {"backbones": {"convnext": backbone}, "image_size": 64},
    }
    for section, values in changes.items():
        mapping[section] = mapping.get(section, {}) | values
    return parse(Settings, mapping)


def fetched(chosen: Settings, dry_run: bool = False) -> list[str]:
    lines: list[str] = []
    fetch(chosen, dry_run, lines.append)
    return lines


def commit(served: StandIn, repository: str) -> str:
    return list(served.repositories[repository])[-1]


def test_one_command_fetches_what_is_read_pins_it_and_the_run_loads_it_offline(
    online: StandIn,
    here: Path,
    tiny_models: dict[str, Path],
    timm_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dfeat.diffusion.models import load_model
    from dfeat.training.network import build_backbone

    fetched(settings())
    folder = here / "weights" / SD / commit(online, SD)
    assert files_in(folder) == {k: v for k, v in files_in(tiny_models["four"]).items() if k != "README.md"}
    assert [path.name for path in (here / "weights" / CONVNEXT).rglob("*") if path.is_file()] == ["model.safetensors"]
    assert not list((here / "weights").glob(".fetching-*"))

    (here / "config.yaml").write_text(settings().model_dump_json())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    pinned = read_settings([Path("config.yaml")])
    assert pinned.diffusion.model.revision == commit(online, SD)
    backbone = pinned.training.backbones["convnext"]
    assert backbone.revision == commit(online, CONVNEXT)
    assert find_model(pinned.diffusion.model).folder.absolute() == folder
    assert (
        load_model(pinned.diffusion.model, "inpaint", CPU).digest
        == load_model(
            pinned.diffusion.model.model_copy(update={"path": str(tiny_models["four"])}), "inpaint", CPU
        ).digest
    )
    wanted = load_file(timm_weights)
    assert build_backbone(backbone).state_dict()["stem.0.weight"].equal(wanted["stem.0.weight"])
    as_overlay = read_settings([Path("config.yaml"), PINNED])
    assert as_overlay == pinned


def test_a_dry_run_says_what_and_how_large_and_writes_nothing(online: StandIn, here: Path) -> None:
    lines = fetched(settings(), dry_run=True)
    assert re.match(rf"{SD} at {commit(online, SD)} \(newest\): \d+ files, \d\.\d MB, \d\.\d MB to fetch", lines[0])
    assert re.fullmatch(r"\d\.\d MB would be fetched into weights", lines[-1])
    assert not PINNED.exists() and not list((here / "weights").rglob("*.safetensors"))
    assert online.sent(".safetensors") == 0


def test_a_second_fetch_transfers_nothing_and_keeps_the_pins_though_the_hub_has_moved(online: StandIn) -> None:
    fetched(settings())
    before, text = online.sent(".safetensors"), PINNED.read_text()
    first = commit(online, SD)
    online.add(SD, {"README.md": b"another"})
    pinned = read_settings_of_the_run()
    lines = fetched(pinned)
    assert online.sent(".safetensors") == before and PINNED.read_text() == text
    assert f"{SD} at {first} (pinned)" in lines[0] and lines[0].endswith("here")


def read_settings_of_the_run() -> Settings:
    """The run's settings as `dfeat fetch --config config.yaml` reads them."""
    Path("config.yaml").write_text(settings().model_dump_json())
    return read_settings([Path("config.yaml")])


def test_a_transfer_that_breaks_is_gone_on_with(online: StandIn, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    online.broken = {UNET}
    fetched(settings())
    whole = online.repositories[SD][commit(online, SD)][UNET]
    assert (here / "weights" / SD / commit(online, SD) / UNET).read_bytes() == whole
    assert online.sent(UNET) == 2 and online.ranges == [f"bytes={len(whole) // 2 >> 16 << 16}-"]


def test_a_fetch_that_ended_early_goes_on_with_the_files_it_lacks(online: StandIn, here: Path) -> None:
    online.wrong = {UNET}
    with pytest.raises(UserError):
        fetched(settings())
    stale = here / "weights" / ".fetching-dead"
    stale.mkdir()
    online.wrong, sent = set(), online.sent("text_encoder/model.safetensors")
    assert sent == 1
    fetched(settings())
    assert online.sent("text_encoder/model.safetensors") == 1 and not stale.exists()


@pytest.mark.parametrize("name", [UNET, "vae/config.json", "model.safetensors"])
def test_bytes_that_are_not_those_of_the_hub_are_not_kept(online: StandIn, here: Path, name: str) -> None:
    online.wrong = {name}
    with pytest.raises(
        UserError, match=rf"{name} of .* did not come whole: its (SHA-256|git digest) .*run `dfeat fetch`"
    ):
        fetched(settings())
    repository = CONVNEXT if name == "model.safetensors" else SD
    assert not (here / "weights" / repository / commit(online, repository) / name).exists()
    assert not PINNED.exists() and not list((here / "weights").glob(".fetching-*"))
    assert (hub.cached(SD, commit(online, SD), "model_index.json") is None) == (repository == SD)  # so no job reads it


def test_a_fetched_file_that_is_damaged_is_fetched_again(online: StandIn, here: Path) -> None:
    fetched(settings())
    path = here / "weights" / SD / commit(online, SD) / UNET
    whole = path.read_bytes()
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert any("is damaged (its SHA-256" in line for line in fetched(settings()))
    assert path.read_bytes() == whole


def test_what_the_hub_refuses_is_a_sentence(online: StandIn, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online.gated = {SD: "hf_right"}
    with pytest.raises(UserError, match=rf"{SD} is gated: accept its terms at http.*/{SD}, then set HF_TOKEN"):
        fetched(settings())
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(UserError, match="is gated"):
        fetched(settings())
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    fetched(settings())
    with pytest.raises(UserError, match="the Hub has no repository nobody/nothing that you may see"):
        fetched(settings(diffusion={"model": {"path": "nobody/nothing"}}))
    with pytest.raises(UserError, match=rf"{SD} has no commit 0{{40}} on the Hub; .*`dfeat fetch` pins"):
        fetched(settings(diffusion={"model": {"path": SD, "revision": "0" * 40}}))
    PINNED.unlink()
    online.add(SD, {"model_index.json": b"{}", "unet/diffusion_pytorch_model.bin": b""})
    with pytest.raises(UserError, match=r"someone/tiny-diffusion at \w{40}/vae has no \.safetensors weights"):
        fetched(settings())


def test_offline_it_says_what_is_missing(online: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    pinned = {"convnext": {"name": "convnext_atto.d2_in1k", "revision": "b" * 40}}
    with pytest.raises(UserError, match=rf"{SD} \(no commit of it is known here\), convnext_atto\.d2_in1k at b{{40}}$"):
        fetched(settings(training={"backbones": pinned}))
    assert not PINNED.exists()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fetched(settings())
    (line,) = fetched_offline(settings(), monkeypatch)
    assert line.endswith("every model of this run is on this disk, and was compared with nothing")
    (Path("weights") / SD / commit(online, SD) / UNET).unlink()
    with pytest.raises(UserError, match=rf"these are missing: {SD} at {commit(online, SD)}$"):
        fetched_offline(settings(), monkeypatch)
    PINNED.unlink()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot fetch .*Connection refused.*these are missing"):
        fetched(settings())


def fetched_offline(chosen: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        return fetched(chosen)


def test_a_disk_that_fills_is_a_fault_of_the_machine_and_leaves_nothing(online: StandIn, here: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(MachineError, match=r"cannot (fetch|write) .*File too large"):
            fetched(settings())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in (here / "weights").rglob("*.safetensors") if path.stat().st_size >= 100_000]
    assert not PINNED.exists() and not list((here / "weights").glob(".fetching-*"))


def test_a_folder_that_cannot_be_written_is_a_sentence(online: StandIn, here: Path) -> None:
    (here / "weights").symlink_to("gone/elsewhere")
    with pytest.raises(UserError, match="cannot write weights"):
        fetched(settings())


def test_the_models_of_a_grid_are_fetched_and_each_point_has_its_own_commit(online: StandIn, here: Path) -> None:
    other = "someone/other-diffusion"
    online.add(other, online.repositories[SD][commit(online, SD)])
    grid = {"methods": ["sd_features"], "grid": {"diffusion.model.path": [SD, other]}}
    chosen = settings(ablation={"model": grid})
    fetched(chosen)
    Path("config.yaml").write_text(chosen.model_dump_json())
    points = [point for _, point in ablation_points(read_settings([Path("config.yaml")]), "model")]
    assert [point.diffusion.model.revision for point in points] == [commit(online, SD), commit(online, other)]


def test_a_repository_that_several_models_share_is_fetched_once(online: StandIn) -> None:
    first = commit(online, SD)
    shared = {"inpaint_model": {"path": SD, "revision": first}, "model": {"path": SD}, "resolution": 64}
    one = {"name": "convnext_atto.d2_in1k"}
    fetched(settings(diffusion=shared, training={"backbones": {"a": one, "b": one}}))
    assert online.sent(UNET) == online.sent(f"{commit(online, CONVNEXT)}/model.safetensors") == 1
    assert PINNED.read_text().count(first) == 1


def test_a_variant_that_is_asked_for_is_what_is_fetched(online: StandIn, here: Path) -> None:
    fetched(settings(diffusion={"model": {"path": SD, "variant": "fp16"}}))
    assert online.sent(UNET) == 0 and online.sent(UNET.replace(".safe", ".fp16.safe")) == 1


def test_two_fetches_at_once_both_end_with_whole_files(online: StandIn, here: Path) -> None:
    threads = [threading.Thread(target=fetched, args=(settings(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert online.sent(UNET) == 1
    assert read_settings_of_the_run().diffusion.model.revision == commit(online, SD)


def test_what_a_user_wrote_into_the_pins_is_kept_or_refused(online: StandIn) -> None:
    PINNED.parent.mkdir()
    PINNED.write_text(f"# mine\npins:\n  {SD}: {commit(online, SD)}  # of Monday\n")
    fetched(read_settings_of_the_run())
    assert PINNED.read_text().startswith(f"# mine\npins:\n  {SD}: {commit(online, SD)}  # of Monday\n  convnext_atto")
    PINNED.write_text("pins: {}\ntraining: {epochs: 3}\n")
    with pytest.raises(UserError, match=r"pinned\.yaml has the key 'training'; .* move what you set there"):
        read_settings_of_the_run()
    PINNED.write_text("pins: {}\n")
    with pytest.raises(UserError, match=rf"could not be added to its `pins`; add them:\n  {SD}: "):
        fetched(read_settings_of_the_run())
    assert PINNED.read_text() == "pins: {}\n"


def test_a_job_without_a_fetch_gets_what_is_read_alone_from_the_hub(online: StandIn, here: Path) -> None:
    source = settings().diffusion.model.model_copy(update={"revision": commit(online, SD)})
    folder = find_model(source).folder
    assert folder.is_relative_to(here / "cache")
    assert online.sent("README.md") == online.sent("safety_checker/model.safetensors") == 0
    shutil.rmtree(here / "weights", ignore_errors=True)
    asked = sum(online.asked.values())
    assert find_model(source).folder == folder and sum(online.asked.values()) == asked
    backbone = settings().training.backbones["convnext"].model_copy(update={"revision": commit(online, CONVNEXT)})
    assert weights_file(backbone).name == "model.safetensors"
