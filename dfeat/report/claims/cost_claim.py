"""The one claim that costs decide: diffusion features are "significantly more efficient" than inpainting [Sec. 5].

What enters: `efficiency.json`. What leaves: blocks of claims.md. Operation counts do not vary, so they need no test:
the cost of the training images' features is compared with that of inpainting them. Seconds and bytes of this run are
listed too. Features, unlike inpainting, also cost something for every test view, so the table gives the number of test
views for each training image at which the two are even.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from dfeat.report.numbers.paper import backbone_name
from dfeat.report.numbers.text import pipe_table, unique
from dfeat.storage.records import read_json, refusal

SENTENCE = (
    "the augmentation of diffusion based features performs similarly to diffusion based inpainting, while being "
    "significantly more efficient"
)


def cost_claim(efficiency: Path, number: int) -> list[str]:
    """The section of claims.md on cost; empty without `efficiency.json` or where one of the two methods is missing."""
    if not efficiency.is_file():
        return []
    try:
        rows = read_json(efficiency, "table efficiency")["rows"]
        by_model = {(row["method"], row["backbone"], row["quantity"]): row for row in rows}
    except (KeyError, TypeError) as error:
        raise refusal(efficiency, f"it is no efficiency.json ({error!r})", "table efficiency") from None
    lines = []
    for quantity, backbone in product(unique(row["quantity"] for row in rows), unique(row["backbone"] for row in rows)):
        found = [by_model.get((method, backbone, quantity)) for method in ("sd_features", "sd_inpaint", "none")]
        features, inpaint, none = found
        if features and inpaint and none:
            lines.append([quantity, backbone_name(backbone), *_compared(quantity, features, inpaint, none)])
    if not lines:
        return []
    heads = [
        "Quantity", "Architecture", "SD Features", "SD Inpaint", "Share", "Even at test views per training image",
        "Verdict",
    ]  # fmt: skip
    return [
        "### Cost",
        f"#### Claim {number}",
        f"“{SENTENCE}” (Sec. 5; the first half is tested above). Test: preparing and training beyond None, "
        "per training image, of SD Features as a share of SD Inpaint's; operations decide.",
        pipe_table("llrrrrl", heads, lines),
    ]


def _compared(quantity: str, features: dict[str, Any], inpaint: dict[str, Any], none: dict[str, Any]) -> list[str]:
    ours, theirs = features["extra"], inpaint["extra"]
    if ours is None or theirs is None or theirs <= 0:
        return ["", "", "", "", "not measured"]
    more = None if features["test"] is None or none["test"] is None else features["test"] - none["test"]
    # even where theirs = ours + views * more
    even = f"{(theirs - ours) / more:.3g}" if more and theirs > ours else ""
    verdict = "" if quantity != "flops" else "**holds**" if ours < theirs else "**fails**"
    return [f"{ours:.4g}", f"{theirs:.4g}", f"{ours / theirs:.3g}", even, verdict]
