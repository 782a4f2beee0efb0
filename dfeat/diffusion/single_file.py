"""Read a whole Stable Diffusion checkpoint from one file, in the original layout ("model.diffusion_model...").

What enters: the file, and the configurations of the components. What leaves: the components with every weight from the
file; a weight that is missing or of another shape raises an error rather than staying random.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from dfeat.diffusion.layout import ModelFiles
from dfeat.errors import UserError

Tensors = dict[str, torch.Tensor]


def read_checkpoint(path: Path) -> Tensors:
    """The tensors of a .safetensors file or a pickle. Raises UserError if it is unreadable or holds anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is not a readable checkpoint ({error}); download it again") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors, so it could run code and is not opened; get the .safetensors file"
        ) from None
    tensors = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise UserError(f"{path} is not a checkpoint of named tensors; get the .safetensors file")
    return tensors


def build_component(files: ModelFiles, tensors: Tensors, name: str, cls: Any, dtype: torch.dtype) -> Any:
    """Build the component `name` ("unet", "vae", "text_encoder") of class `cls` with the checkpoint's weights as `dtype`.

    Raises UserError where the weights are not exactly those that the configuration describes.
    """
    if name == "text_encoder":
        model = cls(cls.config_class.from_pretrained(files.folder / name))
        state = _text_encoder(model, tensors)
    else:
        with torch.device("meta"):  # skips the random initialisation of weights that are replaced below
            model = cls.from_config(files.config(name))
        state = _converted(files, tensors, name)
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in state]
    extra = [key for key in state if key not in wanted] if name != "text_encoder" else []
    shapes = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or extra or shapes:
        raise UserError(
            f"{files.single} does not match the {name} configured in {files.folder}: {len(missing)} weights missing, "
            f"{len(extra)} unknown, {len(shapes)} of another shape (first: {(missing + extra + shapes)[0]}); set "
            "diffusion.model.config to the folder of the same model"
        )
    model.load_state_dict({key: state[key].to(dtype).contiguous() for key in wanted}, assign=True)
    return model


def _converted(files: ModelFiles, tensors: Tensors, name: str) -> Tensors:
    """The weights of the U-Net or VAE by diffusers' names, converted by diffusers. Raises UserError if there are none."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    convert = convert_ldm_unet_checkpoint if name == "unet" else convert_ldm_vae_checkpoint
    try:
        return dict(convert(dict(tensors), files.config(name)))
    except (KeyError, IndexError, AttributeError) as error:
        raise UserError(
            f"{files.single} has no {name} of a Stable Diffusion 1 or 2 checkpoint ({error!r}); give the whole "
            "checkpoint, not that of a component, an adapter or another family"
        ) from None


def _text_encoder(model: Any, tensors: Tensors) -> Tensors:
    """The weights of the CLIP text encoder (Stable Diffusion 1) or the OpenCLIP one (2)."""
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint

    openclip = any(key.startswith("cond_stage_model.model.") for key in tensors)
    state = convert_open_clip_checkpoint(model, tensors) if openclip else convert_ldm_clip_checkpoint(tensors)
    if hasattr(model, "text_model"):
        return dict(state)
    return {key.removeprefix("text_model."): value for key, value in state.items()}
