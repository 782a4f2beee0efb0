"""The U-Net passes of a sampling run: guided or not, whole or with reused deep features.

The inpainter runs this schedule and the cost model counts it, so this module does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfeat.diffusion.settings import InpaintSettings


@dataclass(frozen=True)
class Pass:
    """One sampling step's pass through the U-Net."""

    guided: bool
    """Two rows per image, conditional and unconditional (classifier-free guidance); otherwise one."""
    whole: bool
    """All blocks; otherwise the outermost layer alone, on the deep features of the last whole pass."""


def passes(settings: InpaintSettings) -> list[Pass]:
    """The pass of each of the `settings.steps` steps.

    Guidance applies to the steps whose middle lies in `guidance_interval`, given as shares of the run (Kynkäänniemi et
    al., 2024). Every `cache_interval`-th pass is whole (DeepCache, Ma et al., 2024, uniform 1:N).
    """
    count, (low, high) = settings.steps, settings.guidance_interval
    schedule: list[Pass] = []
    for number in range(count):
        guided = settings.guidance_scale > 1 and low <= (number + 0.5) / count <= high
        # The first guided pass after unguided ones must be whole: no unconditional deep features are cached yet.
        turned_on = guided and bool(schedule) and not schedule[-1].guided
        schedule.append(Pass(guided, number % settings.cache_interval == 0 or turned_on))
    return schedule


def total(settings: InpaintSettings, whole: float, shallow: float) -> float:
    """The summed cost of all passes of an image, given the cost of one row of a whole and of a shallow pass."""
    return sum((2 if step.guided else 1) * (whole if step.whole else shallow) for step in passes(settings))
