"""The networks of the built-in latent diffusion model, and how they are saved.

What enters: nothing, or the words of the tokenizer's vocabulary. What leaves: untrained parts of a Stable Diffusion in
small, and, of trained ones, a folder in the diffusers layout with fp16 safetensors.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from dfeat.progress import bars_of_libraries
from dfeat.storage.atomic import write_files

TOKENS = 24
"""Length of a tokenised prompt; the text encoder's number of positions."""
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
}
"""The noise schedule of Stable Diffusion 2.1."""


def build_vae() -> Any:
    """The autoencoder: f = 8, four latent channels, 1.0 M parameters."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
    )


def build_unet() -> Any:
    """The U-Net: two levels like the deepest of Stable Diffusion's, 3.1 M parameters."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(64, 96),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(4, 6),
        norm_num_groups=16,
        use_linear_projection=True,
    )


def build_text_encoder(vocabulary: int) -> Any:
    """The CLIP text encoder: two layers, 64 wide."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=64,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def build_tokenizer(words: list[str]) -> Any:
    """A CLIP tokenizer with one token for each of `words`; any other text is split into characters."""
    from transformers import CLIPTokenizer

    vocabulary = ["<|startoftext|>", "<|endoftext|>"]
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    vocabulary += characters + [character + "</w>" for character in characters]
    merges: list[tuple[str, str]] = []
    for word in sorted({word.lower() for word in words}):
        pieces = [*word[:-1], word[-1] + "</w>"]
        left = pieces[0]
        for piece in pieces[1:]:
            if (left, piece) not in merges:
                merges.append((left, piece))
            left += piece
            if left not in vocabulary:
                vocabulary.append(left)
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=merges,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=TOKENS,
    )


def save_pipeline(vae: Any, unet: Any, text_encoder: Any, tokenizer: Any, out: Path) -> None:
    """Save the five components as a StableDiffusionInpaintPipeline in fp16 safetensors."""
    from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline

    pipeline = StableDiffusionInpaintPipeline(
        vae=vae.half(),
        unet=unet.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    save(pipeline, out)


def save(model: Any, out: Path) -> None:
    """Write a model in the diffusers layout, all files or none."""
    with tempfile.TemporaryDirectory() as name, bars_of_libraries():
        folder = Path(name)
        model.save_pretrained(folder, safe_serialization=True)
        files = [path for path in folder.rglob("*") if path.is_file()]
        write_files({out / path.relative_to(folder): path.read_bytes() for path in files})
