"""The forward process of a diffusion model, and the samplers that reverse it, from the betas of its schedule alone.

What enters: the folder's `scheduler/scheduler_config.json`. What leaves: the forward process, which noises latents for
features and for the known cells of inpainting alike, and DDIM or DPM-Solver++ over the same betas. Which sampler the
folder names, and how that one spaces timesteps or clips, changes nothing. Torch is imported only where either is built,
so that `dfeat doctor` can check a schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from dfeat.errors import UserError
from dfeat.section import Section, parse

if TYPE_CHECKING:
    from torch import Tensor, device

    from dfeat.diffusion.layout import ModelFiles

SAMPLERS_OF_BETAS: Final = tuple(
    f"{name}Scheduler"
    for name in (
        "DDIM", "DDIMInverse", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep",
        "DPMSolverMultistepInverse", "DPMSolverSDE", "DPMSolverSinglestep", "EulerAncestralDiscrete", "EulerDiscrete",
        "HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete", "LCM", "LMSDiscrete", "PNDM", "RePaint", "SASolver",
        "TCD", "UniPCMultistep",
    )
)  # fmt: skip
"""diffusers' samplers for models whose forward process is that of DDPM, given by its betas."""

Beta = Annotated[float, Field(gt=0, lt=1)]


class NoiseSchedule(Section):
    """The forward process as a scheduler's configuration states it, with diffusers' names and defaults."""

    num_train_timesteps: int = Field(1000, ge=2)
    beta_start: Beta
    beta_end: Beta
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    trained_betas: tuple[Beta, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    use_flow_sigmas: Literal[False] = Field(False, exclude=True)
    timestep_type: Literal["discrete"] = Field("discrete", exclude=True)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.trained_betas is not None and len(self.trained_betas) != self.num_train_timesteps:
            raise ValueError(
                f"'trained_betas' has {len(self.trained_betas)} values; it must have num_train_timesteps, "
                f"{self.num_train_timesteps}"
            )
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "'rescale_betas_zero_snr' is True with the prediction_type epsilon, which says nothing of the image where "
                "the last timestep is pure noise; it needs v_prediction"
            )
        return self


def noise_schedule(files: ModelFiles) -> NoiseSchedule:
    """The noise schedule of a model's folder.

    Raises UserError for a sampler that is not one of SAMPLERS_OF_BETAS (flow matching and others), and for betas or a
    prediction type that are missing or unknown.
    """
    where, config = files.folder / "scheduler" / "scheduler_config.json", files.config("scheduler")
    remedy = "give a Stable Diffusion 1 or 2 model, or the configuration of the scheduler that it was trained with"
    for path, name in (
        (where, config.get("_class_name")),
        (files.folder / "model_index.json", files.class_name("scheduler")),
    ):
        if name is not None and name not in SAMPLERS_OF_BETAS:
            raise UserError(
                f"{path} names the scheduler {name!r}, whose forward process is not given by betas alone; allowed are "
                f"{', '.join(SAMPLERS_OF_BETAS)}. {remedy[0].upper()}{remedy[1:]}"
            )
    try:
        return parse(
            NoiseSchedule, {key: config[key] for key in NoiseSchedule.model_fields if key in config}, str(where)
        )
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from None


def forward_process(schedule: NoiseSchedule, device: device | None = None) -> Any:
    """diffusers' DDPMScheduler of the schedule, of which only betas and `add_noise` are used, noising on `device`."""
    from diffusers import DDPMScheduler

    process: Any = DDPMScheduler(**schedule.model_dump())
    process.alphas_cumprod = process.alphas_cumprod.to(device)
    return process


def noised(forward: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Latents (B, 4, h, w) with noise of the same shape at their timesteps (B,) or (1,): float32, whatever the dtypes."""
    # q(z_t | z_0) (Ho et al., 2020, Eq. 4): z_t = sqrt(alphabar_t) z_0 + sqrt(1 - alphabar_t) noise. In bfloat16
    # alphabar_1 would round to 1, and t = 1 have no noise.
    return forward.add_noise(latents.float(), noise.float(), timesteps)  # type: ignore[no-any-return]


def sampler(forward: Any, name: str, steps: int) -> Any:
    """The sampler "ddim" or "dpmsolver++" over the betas of `forward`, with `steps` timesteps set.

    Raises UserError where the model has no more timesteps than `steps`.
    """
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    process = {key: forward.config[key] for key in NoiseSchedule.model_fields if key in forward.config}
    if steps >= (trained := process["num_train_timesteps"]):
        raise UserError(
            f"diffusion.inpaint.steps is {steps}, but the model was trained with {trained} timesteps; use at most {trained - 1}"
        )
    chosen: Any
    if name == "ddim":
        # Timesteps as in the code of Stable Diffusion: 1 + i (T // steps), the distance by which DDIM itself steps back;
        # the last step ends at alphabar_0.
        spacing = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
        # x0 is not clipped: latents are not confined to [-1, 1].
        chosen = DDIMScheduler(**process, **spacing, clip_sample=False, thresholding=False)
    else:
        # Order 2 (2M), uniform in t from the last timestep to 0. A cosine schedule starts at lambda = -5.1 instead of at
        # its end, where alpha is almost 0 (Lu et al., 2022, App. D).
        cosine = process["beta_schedule"] == "squaredcos_cap_v2" and process["trained_betas"] is None
        chosen = DPMSolverMultistepScheduler(
            **process, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", lower_order_final=True,
            thresholding=False, timestep_spacing="linspace", final_sigmas_type="zero",
            lambda_min_clipped=-5.1 if cosine else -float("inf"),
        )  # fmt: skip
    chosen.set_timesteps(steps)
    if name != "ddim":
        chosen.set_begin_index(0)  # else the first step is searched among the timesteps
    return chosen
