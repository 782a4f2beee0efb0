"""The one claim that costs decide: diffusion features are "significantly more efficient" than inpainting [Sec. 5].

What enters: `efficiency.json`. What leaves: lines of claims.md. Operation counts do not vary, so they need no test:
what the features of the training images cost is set beside what inpainting them costs. Seconds and bytes of this run
stand beside it. Features also cost something for every test view, which inpainting does not: the number of test views
for each training image at which the two are even is given with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfeat.report.numbers.paper import backbone_name
from dfeat.storage.records import read_json, refusal

SENTENCE = (
    "the augmentation of diffusion based features performs similarly to diffusion based inpainting, while being "
    "significantly more efficient"
)


def cost_claim(efficiency: Path, number: int) -> list[str]:
    """The section of claims.md on cost; empty where efficiency was not made or one of the two methods is missing."""
    if not efficiency.is_file():
        return []
    try:
        rows = read_json(efficiency, "table efficiency")["rows"]
        of = {(row["method"], row["backbone"], row["quantity"]): row for row in rows}
    except (KeyError, TypeError) as error:
        raise refusal(efficiency, f"it is no efficiency.json ({error!r})", "table efficiency") from None
    quantities = list(dict.fromkeys(row["quantity"] for row in rows))
    lines = []
    for quantity in quantities:
        for backbone in dict.fromkeys(row["backbone"] for row in rows):
            found = [of.get((method, backbone, quantity)) for method in ("sd_features", "sd_inpaint", "none")]
            features, inpaint, none = found
            if features and inpaint and none:
                lines.append(_line(quantity, backbone, features, inpaint, none))
    if not lines:
        return []
    return [
        "### Cost",
        "",
        f"{number}. “{SENTENCE}” (Sec. 5; the first half is tested above). Test: preparing and training beyond None, "
        "per training image, of SD Features as a share of SD Inpaint's; operations decide.",
        "",
        "| Quantity | Architecture | SD Features | SD Inpaint | Share | Even at test views per training image | Verdict |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        *lines,
        "",
    ]


def _line(quantity: str, backbone: str, features: dict[str, Any], inpaint: dict[str, Any], none: dict[str, Any]) -> str:
    ours, theirs = features["extra"], inpaint["extra"]
    cells = [quantity, backbone_name(backbone)]
    if ours is None or theirs is None or theirs <= 0:
        return "| " + " | ".join([*cells, "", "", "", "", "not measured"]) + " |"
    more = None if features["test"] is None or none["test"] is None else features["test"] - none["test"]
    even = f"{(theirs - ours) / more:.3g}" if more and theirs > ours else ""
    verdict = "" if quantity != "flops" else "**holds**" if ours < theirs else "**fails**"
    return "| " + " | ".join([*cells, f"{ours:.4g}", f"{theirs:.4g}", f"{ours / theirs:.3g}", even, verdict]) + " |"
