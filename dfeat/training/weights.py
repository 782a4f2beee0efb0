"""Find the weights of a backbone and the head that they have.

This module does not import torch, so that `dfeat doctor` and Snakemake can use it.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any, Final, NamedTuple

from dfeat import hub
from dfeat.errors import UserError
from dfeat.section import LocalPath
from dfeat.shortage import pass_on
from dfeat.training.settings import Backbone

HEADS = ("head.fc.weight", "head.weight", "classifier.weight", "fc.weight")
"""Names of the last linear layer's weight in timm's models."""
SUFFIXES: Final = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar", ".ckpt")
"""Of the files that are read; all but the first are pickles, of which only tensors are read."""
USUAL: Final = ("model.safetensors", "pytorch_model.bin")
"""How the files of timm's repositories on the Hub are called."""
_WRAPPERS: Final = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where timm looks for weights inside a pickle, first things first."""


class HubWeights(NamedTuple):
    """The repository of timm's own weights of a model, and how their file may be called, the first found is read."""

    repository: str
    names: tuple[str, ...]


def weights_path(path: LocalPath) -> Path:
    """The file of a path in `backbone.weights`; "demo:<name>" is a file that ships with the package."""
    if str(path).startswith("demo:"):
        return Path(__file__).parents[1] / "demo" / "models" / f"{str(path)[5:]}.safetensors"
    return Path(path)


def weights_file(backbone: Backbone) -> Path:
    """The file of a backbone's weights: a local one, one that `dfeat fetch` fetched, or one that is fetched now.

    `backbone.revision` pins it, and run.json records its digest. Raises UserError if it cannot be fetched.
    """
    if backbone.weights is not None:
        return weights_path(backbone.weights)
    repository, names = hub_weights(backbone.name)
    try:
        return hub.first_of(repository, backbone.revision, names)
    except UserError as error:
        raise type(error)(
            f"cannot fetch the weights of {backbone.name} from {repository} ({error}); run `dfeat fetch` where there is a "
            "network, or give a local .safetensors as its `weights`"
        ) from None


def hub_weights(name: str) -> HubWeights:
    """Where timm's weights of a model are on the Hub. Raises UserError if timm has none there."""
    import timm

    source = timm.get_pretrained_cfg(name)
    if source is None or not source.hf_hub_id:
        raise UserError(f"timm has no weights of {name!r} on the Hub; give a local .safetensors as `weights`")
    file = source.hf_hub_filename or "pytorch_model.bin"
    safe = file.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"
    return HubWeights(source.hf_hub_id, (safe, file) if file.endswith(".bin") else (file,))


def has_imagenet_head(backbone: Backbone) -> bool:
    """Whether the weights have a head of 1,000 classes, so that the backbone can be evaluated before fine-tuning.

    Read from a local file. For timm's own weights it follows from the tag in the name (`.fb_in1k`); a name without tag
    counts as no.
    """
    if backbone.weights is None:
        return backbone.name.partition(".")[2].endswith("in1k")
    safe = str(backbone.weights).startswith("demo:") or str(backbone.weights).endswith(".safetensors")
    shapes = (_tensor_shapes if safe else _pickled_shapes)(backbone.weights)
    bare = {name.removeprefix("_orig_mod.").removeprefix("module."): shape for name, shape in shapes.items()}
    return any(tuple(bare.get(name, [0]))[:1] == (1000,) for name in HEADS)


def _pickled_shapes(weights: LocalPath) -> dict[str, Any]:
    """Names and shapes of the tensors in a file of torch.save, without torch; empty if it is not one.

    Nothing that the pickle names is imported or called.
    """
    try:
        path = weights_path(weights)
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    inner = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                    with archive.open(inner) as pickled:
                        content = _Shapes(pickled).load()
            else:  # before torch 1.6: a number, a version and facts of the machine come first
                file.seek(0)
                content = [_Shapes(file).load() for _ in range(4)][3]
        for wrapper in _WRAPPERS:
            if isinstance(content, dict) and content.get(wrapper) is not None:
                content = content[wrapper]
                break
        return {str(name): value.shape for name, value in content.items() if isinstance(value, _StandIn)}
    except Exception as error:  # of a damaged pickle, any
        pass_on(error, str(weights))
        return {}


class _StandIn(dict[Any, Any]):
    """What stands for everything that a pickle makes: it takes whatever is done to it. `shape` is that of a tensor."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        # torch._utils._rebuild_tensor_v2(storage, offset, shape, stride, ...)
        sizes = arguments[2] if len(arguments) > 3 else None
        self.shape = sizes if isinstance(sizes, tuple) else ()
        if len(arguments) == 2 and isinstance(arguments[0], _StandIn):  # torch._utils._rebuild_parameter(data, ...)
            self.shape = arguments[0].shape

    def __setstate__(self, _state: Any) -> None:
        pass


class _Shapes(pickle.Unpickler):
    """Reads of a pickle of torch what is a plain value, and the shapes of its tensors."""

    def find_class(self, _module: str, _name: str) -> Any:
        """Every class and function is `_StandIn`."""
        return _StandIn

    def persistent_load(self, _pid: Any) -> Any:
        """A storage, of which nothing is read."""
        return None


def _tensor_shapes(weights: LocalPath) -> dict[str, list[int]]:
    """Names and shapes in the header of a .safetensors file; empty if it is not one."""
    try:
        path = weights_path(weights)
        with path.open("rb") as file:
            # A .safetensors file begins with the header's length (8 bytes, little endian) and the header, JSON.
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        pass_on(error, str(weights))
        return {}
