"""The one claim that costs decide: diffusion features are "significantly more efficient" than inpainting [Sec. 5].

What enters: `efficiency.json`. What leaves: blocks of claims.md. Operation counts do not vary, so they need no test: what
SD Features costs beyond None is compared with what SD Inpaint does, in training and at inference. Features, unlike
inpainting, also cost something for every test image, so where they are cheaper in training the claim holds up to a number
of test images and fails beyond it. Seconds, memory and bytes of this run are listed too.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from dfeat.config.labels import Labels
from dfeat.report.numbers.text import escaped, number, pipe_table, unique
from dfeat.report.tables.efficiency import HEADINGS, UNITS, Quantity
from dfeat.storage.records import read_json, refusal

SENTENCE = (
    "the augmentation of diffusion based features performs similarly to diffusion based inpainting, while being "
    "significantly more efficient"
)


def cost_claim(efficiency: Path, claim: int, labels: Labels, instead: str = "") -> list[str]:
    """The section of claims.md on cost; empty without `efficiency.json` or where one of the two methods is missing.

    `instead` stands in place of a verdict.
    """
    if not efficiency.is_file():
        return []
    try:
        content = read_json(efficiency, "table efficiency")
        rows, images, tested = content["rows"], content["images"], content["test_images"]
        by_model = {(row["method"], row["backbone"], row["quantity"]): row for row in rows}
    except (KeyError, TypeError) as error:
        raise refusal(efficiency, f"it is no efficiency.json ({error!r})", "table efficiency") from None
    lines = []
    for quantity, backbone in product(unique(row["quantity"] for row in rows), unique(row["backbone"] for row in rows)):
        features, inpaint = (by_model.get((method, backbone, quantity)) for method in ("sd_features", "sd_inpaint"))
        if features and inpaint:
            *values, verdict = _compared(quantity, features, inpaint, images)
            lines.append(
                [HEADINGS[quantity], escaped(labels.backbone(backbone)), *values, verdict and (instead or verdict)]
            )
    if not lines:
        return []
    both = [labels.method(method) for method in ("sd_features", "sd_inpaint")]
    costs = [escaped(f"{method}, {step}") for step in ("training", "inference") for method in both]
    heads = ["Quantity", "Architecture", *costs, "Even after, test images", "Verdict"]
    return [
        "### Cost",
        f"#### Claim {claim}: SD Features costs less",
        f"“{SENTENCE}” (Sec. 5; the first half is tested above). Test: the cost beyond None of SD Features against that of "
        "SD Inpaint, of preparing and training per training image, and of inference per test image; operations decide. "
        f"This run has {images:,} training images, and classifies {tested:,} test images with each model.",
        pipe_table("llrrrrrl", heads, lines),
    ]


def _compared(quantity: Quantity, features: dict[str, Any], inpaint: dict[str, Any], images: int) -> list[str]:
    """The extras of both, the number of test images at which they are even, and the verdict."""
    extras = [row[name] for name in ("extra", "extra_test") for row in (features, inpaint)]
    ours, theirs, ours_test, theirs_test = extras
    unit, scale = UNITS[quantity]
    shown = ["" if value is None else f"{number(value / scale)} {unit}" for value in extras]
    even, verdict = "", ""
    if quantity == "flops":
        saved, dearer = images * (theirs - ours), ours_test - theirs_test
        if saved > 0 and dearer > 0:
            # images * theirs + n * theirs_test = images * ours + n * ours_test
            even = f"{saved / dearer:,.0f}"
        verdict = "**fails**" if saved <= 0 else f"**holds** up to {even}, **fails** beyond" if even else "**holds**"
    return [*shown, even, verdict]
