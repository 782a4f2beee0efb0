"""Which U-Net passes a sampling run makes: guided or not, whole or with deep features used again.

No torch here: the inpainter runs this schedule, and the cost model counts it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfeat.diffusion.settings import InpaintSettings


@dataclass(frozen=True)
class Pass:
    """One sampling step's pass through the U-Net."""

    guided: bool
    """Two rows an image, conditional and unconditional (classifier-free guidance); otherwise one."""
    whole: bool
    """All blocks; otherwise the outermost layer alone, on the deep features of the last whole pass."""


def passes(settings: InpaintSettings, steps: int | None = None) -> list[Pass]:
    """The pass of each of `steps` steps (default: the settings' own; some solvers make one more).

    Guidance acts on the steps whose middle lies in `guidance_interval`, in shares of the run (Kynkäänniemi et al.,
    2024); every `cache_interval`-th pass is whole (DeepCache, Ma et al., 2024, uniform 1:N), and so is one that turns
    guidance on, for which no deep features are at hand.
    """
    count = settings.steps if steps is None else steps
    low, high = settings.guidance_interval
    schedule: list[Pass] = []
    for number in range(count):
        guided = settings.guidance_scale > 1 and low <= (number + 0.5) / count <= high
        turned_on = guided and bool(schedule) and not schedule[-1].guided
        schedule.append(Pass(guided, number % settings.cache_interval == 0 or turned_on))
    return schedule


def total(settings: InpaintSettings, whole: float, shallow: float) -> float:
    """What all passes of an image cost, given a whole pass's cost for one row and a shallow one's."""
    return sum((2 if step.guided else 1) * (whole if step.whole else shallow) for step in passes(settings))
