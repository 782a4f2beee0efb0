"""What a forked verb finds already imported. Nothing here starts a thread, so that forks of it are safe."""

import contextlib

import diffusers  # noqa: F401
import timm  # noqa: F401
import torch  # noqa: F401
import transformers  # noqa: F401

import dfeat.cli
import dfeat.demo.worlds
import dfeat.diffusion.features
import dfeat.diffusion.inpaint
import dfeat.evaluation.predict
import dfeat.occlusion.parts
import dfeat.report.figures.curves
import dfeat.report.figures.examples
import dfeat.report.tables.published
import dfeat.training.loop  # noqa: F401

with contextlib.suppress(AttributeError):  # classes that these libraries import when they are first asked for
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401
