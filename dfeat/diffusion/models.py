"""Load a diffusion model: check that it suits its use, and digest its files. No other module loads one.

What enters: a `ModelSource` (local folder in the diffusers layout, one .safetensors file of a whole checkpoint,
Hub id with revision, or "demo" for the model that ships with the package) and the use. What leaves: a frozen
`DiffusionModel` on its device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from dfeat.devices.arithmetic import arithmetic
from dfeat.devices.compiler import prepare_to_compile
from dfeat.diffusion.fitting import in_slices
from dfeat.diffusion.forward import forward_process, noise_schedule
from dfeat.diffusion.layout import COMPONENTS, RANDOM, WEIGHTED, ModelFiles, Use, check_pairing, find_model
from dfeat.diffusion.settings import ModelSource
from dfeat.diffusion.single_file import build_component, read_checkpoint
from dfeat.diffusion.variants import STEMS
from dfeat.errors import UserError
from dfeat.progress import bars_of_libraries, say, shows_bars
from dfeat.randomness import seed_for
from dfeat.section import parse
from dfeat.shortage import pass_on
from dfeat.storage.provenance import combined_digest

DTYPES: Final = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
GRAPHS: Final = 4096
"""Most graphs of one `forward`: more than the layers of its class times the shapes that a shard has."""
INDEXED: Final = 2**31
"""Elements that 32 bits can number: above, kernels of a GPU fail, or slower ones take their place."""
_COMPILED: Final = ("resnets", "attentions", "downsamplers", "upsamplers")


@dataclass
class DiffusionModel:
    """The components of a pipeline that a use needs; the others are None. All weights are frozen."""

    vae: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    """The forward process (see `forward.forward_process`), the same whichever sampler the folder names."""
    digest: str
    device: torch.device
    dtype: torch.dtype
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file behind `digest`, by its name inside the model's folder."""
    precision: str = "float32"
    """Its name in the settings, which tells TF32 from float32 where `dtype` does not."""

    @property
    def scaling_factor(self) -> float:
        """Factor by which the VAE's latents have about unit variance, as the U-Net expects them."""
        return float(self.vae.config.scaling_factor)

    @property
    def latent_factor(self) -> int:
        """Pixels per latent cell along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def side_multiple(self) -> int:
        """Heights and widths in pixels must be multiples of this, for every level of VAE and U-Net to halve evenly."""
        return self.latent_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    @property
    def native_side(self) -> int:
        """The side in pixels of the squares that the model was trained on."""
        cells = self.unet.config.sample_size
        return int(max(cells) if isinstance(cells, list | tuple) else cells) * self.latent_factor

    def encode(self, pixels: torch.Tensor) -> Any:
        """The VAE's posterior, of unscaled latents (B, 4, h, w), for pixels (B, 3, H, W) in [-1, 1]."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        widths = self.vae.config.block_out_channels
        # A level's first activation has the width of the level above it.
        most = rows_at_once(
            [max(widths[max(0, level - 1) : level + 1]) for level in range(len(widths))], pixels.shape[2:]
        )
        return DiagonalGaussianDistribution(
            in_slices(lambda rows: self.vae.encode(rows).latent_dist.parameters, pixels, most)
        )

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The pixels (B, 3, H, W) of unscaled latents (B, 4, h, w)."""
        widths, sides = self.vae.config.block_out_channels, [side * self.latent_factor for side in latents.shape[2:]]
        # The decoder enlarges first and narrows then: a level's first activation has the width of the level below it.
        most = rows_at_once([max(widths[level : level + 2]) for level in range(len(widths))], sides)
        return in_slices(lambda rows: self.vae.decode(rows).sample, latents, most)

    def to(self, device: torch.device | str) -> None:
        """Move the components to a device, in place. Raises UserError for one that torch does not reach."""
        self.device = chosen_device(device)
        for component in (self.vae, self.unet, self.text_encoder):
            if component is not None:
                component.to(self.device)

    def arithmetic(self) -> AbstractContextManager[None]:
        """Inside, float32 products are those of `precision`; every computation with the components takes place there."""
        return arithmetic(self.precision)

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> torch.Tensor:
        """Text embeddings (prompts, tokens, width); the empty string is the null prompt."""
        most = self.tokenizer.model_max_length
        tokens = self.tokenizer(prompts, padding="max_length", max_length=most, truncation=True, return_tensors="pt")
        with self.arithmetic():
            return self.text_encoder(tokens.input_ids.to(self.device))[0]


def rows_at_once(widths: Sequence[int], sides: Sequence[int]) -> int:
    """The most images whose largest activation has fewer than INDEXED elements.

    `widths` are the most channels at each level, `sides` height and width at the first; each next one has half of them.
    """
    largest = max(width * (sides[0] * sides[1] // 4**level) for level, width in enumerate(widths))
    return max(1, (INDEXED - 1) // largest)


def load_model(source: ModelSource, use: Use, device: torch.device, resolution: int | None = None) -> DiffusionModel:
    """Load the components that `use` needs.

    Logs a note if `resolution` differs from the one that the model was trained at. Raises UserError if the files are
    not those of a Stable Diffusion model, weights are missing, or the components are incompatible (see
    `layout.check_pairing`).
    """
    files = find_model(source)
    fault = files.missing(COMPONENTS[use])
    if fault:
        raise UserError(fault)
    if (files.folder / "unet").is_dir():
        for note in check_pairing(files, source.precision, resolution):
            say(note)
    dtype = DTYPES[source.precision]
    tensors = read_checkpoint(files.single) if files.single else None
    parts = {name: _load_component(files, name, dtype, device, tensors) for name in COMPONENTS[use]}
    everything = dict.fromkeys((*WEIGHTED, "tokenizer", "scheduler")) | parts
    digests = files.digests()
    return DiffusionModel(
        **everything,
        digest=combined_digest(digests),
        device=device,
        dtype=dtype,
        digests=digests,
        precision=source.precision,
    )


def load_pretrained(
    path: str | Path, precision: str, revision: str | None, device: torch.device | str | None
) -> DiffusionModel:
    """Load all components of a model from a folder or Hub id, for the library; `device` None is the best one here."""
    source = parse(ModelSource, {"path": str(path), "precision": precision, "revision": revision}, "model")
    chosen = chosen_device(device)
    if shows_bars():  # the first load imports diffusers and transformers, which takes longer than to read a small model
        say(f"loading the diffusion model {path} onto {chosen}")
    return load_model(source, "inpaint", chosen)


def chosen_device(device: torch.device | str | None) -> torch.device:
    """The device of that name; None is the best one here. Raises UserError for one that torch does not reach."""
    from dfeat.devices import pick_device

    if device is None:
        return pick_device()
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise UserError(f"device is {device!r}, which is none of torch's; use 'cpu', 'cuda' or 'cuda:1'") from None
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        pass_on(error)
        raise UserError(
            f"device is {device!r}, and torch reaches no such device here; use 'cpu', or leave it out"
        ) from None
    return chosen


def compile_model(
    model: DiffusionModel, wanted: bool, backend: str | Callable[..., Any] = "inductor",
    apart: Sequence[torch.nn.Module] = (),
) -> None:  # fmt: skip
    """If `wanted`, compile the layers of U-Net and VAE but for those `apart` in place, a graph for each shape."""
    if not wanted:
        return
    import torch._dynamo.config as limits

    prepare_to_compile("diffusion.compile", model.device.type)
    # All layers of a class share the code of their `forward`, which dynamo gives up compiling after 8 graphs; the layers
    # after these would run uncompiled without a word.
    limits.recompile_limit = max(limits.recompile_limit, GRAPHS)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, GRAPHS)
    for layer in compiled_layers(model):
        if layer in apart:
            continue
        layer.compile(dynamic=False, backend=backend)


def compiled_layers(model: DiffusionModel) -> list[torch.nn.Module]:
    """The layers that `compile_model` compiles: residual blocks, attention and resamplers of U-Net and VAE."""
    # Layers rather than the whole model: compiling is quick, and `forward_until` can still stop after any block.
    blocks = [] if model.unet is None else [*model.unet.down_blocks, model.unet.mid_block, *model.unet.up_blocks]
    if model.vae is not None:
        blocks += [*model.vae.encoder.down_blocks, model.vae.encoder.mid_block]
        blocks += [*model.vae.decoder.up_blocks, model.vae.decoder.mid_block]
    lists = (getattr(block, name, None) or () for block in blocks for name in _COMPILED)
    return [layer for layers in lists for layer in layers if layer is not None]


def _load_component(
    files: ModelFiles, name: str, dtype: torch.dtype, device: torch.device, tensors: dict[str, torch.Tensor] | None
) -> Any:
    if name == "scheduler":
        return forward_process(noise_schedule(files), device)
    cls, library = _class_of(files, name)
    if name not in WEIGHTED:
        return _pretrained(files, name, cls)
    if name == "unet" and files.unet == RANDOM:
        model = _random(files, cls, dtype)
    elif tensors is not None and not (name == "unet" and files.unet):
        model = build_component(files, tensors, name, cls, dtype)
    else:
        model = _from_folder(files, name, cls, library, dtype)
    # Convolutions are faster in channels-last order; the text encoder has none.
    memory_format = torch.preserve_format if name == "text_encoder" else torch.channels_last
    return model.to(device=device, memory_format=memory_format).eval().requires_grad_(False)


def _random(files: ModelFiles, cls: Any, dtype: torch.dtype) -> Any:
    """The U-Net with the weights that its class draws, always the same ones: what it computes without being trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(0, RANDOM, "unet"))
        return cls.from_config(files.config("unet")).to(dtype)


def _class_of(files: ModelFiles, name: str) -> tuple[Any, str]:
    """The class of a component and its library, from model_index.json."""
    import diffusers
    import transformers

    index = files.folder / "model_index.json"
    try:
        library, cls = json.loads(index.read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index} names no {name} ({error!r}); get the model again") from None
    module = {"diffusers": diffusers, "transformers": transformers}.get(library)
    if module is None or not hasattr(module, str(cls)):
        raise UserError(
            f"{index} names {library}.{cls} as {name}, which the installed diffusers and transformers do not have; give "
            "a Stable Diffusion 1 or 2 model"
        )
    return getattr(module, cls), library


def _pretrained(files: ModelFiles, name: str, cls: Any, folder: Path | None = None, **options: Any) -> Any:
    """Load a component, from `folder` in place of its own. Raises UserError if its library cannot."""
    from safetensors import SafetensorError

    try:
        with bars_of_libraries():
            return cls.from_pretrained(folder or files.folder / name, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        why = str(error).replace(str(folder), str(files.folder / name))
        raise UserError(f"cannot load the {name} of {files.folder} ({why}); get the model again") from None


def _from_folder(files: ModelFiles, name: str, cls: Any, library: str, dtype: torch.dtype) -> Any:
    """Load a component in the diffusers layout. Raises UserError for missing weights, which would stay random.

    Its library is shown a folder of links to the files that `ModelFiles.digests` covers, by their plain names. It finds
    nothing else, whatever variants lie beside them and however their shards are called.
    """
    own = files.folder / name
    precision = "dtype" if library == "transformers" else "torch_dtype"
    options: dict[str, Any] = {precision: dtype, "use_safetensors": True, "output_loading_info": True}
    first, *shards = files.weights(name)
    plain = f"{STEMS[name]}.safetensors{'.index.json' if shards else ''}"
    with TemporaryDirectory(prefix="dfeat-") as view:
        shown = {"config.json": own / "config.json", plain: first} | {file.name: file for file in shards}
        for called, file in shown.items():
            (Path(view) / called).symlink_to(file.absolute())
        model, seen = _pretrained(files, name, cls, Path(view), **options)
    if seen["missing_keys"]:
        missing = sorted(seen["missing_keys"])
        where = f"diffusion.model.unet {first}" if name == "unet" and files.unet else str(own)
        raise UserError(f"{where} lacks {len(missing)} weights ({missing[0]} ...); get the model again")
    return model
