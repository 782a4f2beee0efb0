"""Verdicts on the paper's claims: those on its printed tables are derived a second time here, from the values alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from statistics import NormalDist, fmean

import pytest

from dfeat.config import Settings
from dfeat.report.claims.claims import CLAIMS, write_claims
from dfeat.report.claims.printed import is_share
from dfeat.report.claims.verdicts import judge, printed_accuracies
from dfeat.report.numbers.statistics import Effect
from dfeat.section import parse

from .predictions import small_settings, write_predictions

VALUES = Path(__file__).parents[2] / "dfeat/report/numbers/paper_values.json"
LEVELS = (0, 20, 40, 60, 80)
BACKBONES = ("convnext", "swin")
OURS, OTHERS = ("sd_inpaint", "sd_features"), ("black_out", "replace", "cutmix")
Pairs = list[tuple[float, float]]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """claims.md of a small run."""
    folder = tmp_path_factory.mktemp("run")
    write_predictions(folder / "evaluation", small_settings())
    return claims_of(folder / "evaluation", small_settings(), folder)


def claims_of(evaluation: Path, settings: Settings, out: Path) -> str:
    write_claims(evaluation, settings, out)
    return (out / "claims.md").read_text()


def section(text: str, start: str) -> str:
    """The section of claims.md whose head starts so."""
    return next(part for part in re.split(r"^### ", text, flags=re.M) if part.startswith(start))


def summary(text: str, source: str) -> dict[int, list[str]]:
    """Both verdicts on each claim with their counts, from the columns at a glance whose first head starts so."""
    found = {}
    for heads, lines in re.findall(r"^(\| Claim \|.*\|)\n\| -.*\n((?:\|.*\n)+)", text, flags=re.M):
        columns = [head.strip() for head in heads.split("|")]
        for place in [place for place, head in enumerate(columns) if head.startswith(source)]:
            for line in lines.splitlines():
                name, *cells = (line.split("|")[column] for column in (1, place, place + 1))
                found[int(name.split()[0])] = [part.strip("* ") for cell in cells for part in cell.split(", ")]
    return found


def block(text: str, claim: int) -> str:
    return text.split(f"#### Claim {claim}: ")[1].split("#### ")[0]


def printed(table: str) -> dict[tuple[str, str, int, str], float]:
    rows = json.loads(VALUES.read_text())[table]["values"]
    return {
        (row["method"], row["backbone"], row["level"], metric): row[metric]
        for row in rows
        for metric in ("top1", "top5")
        if metric in row
    }


def error(n: int, *values: float) -> float:
    """The standard error, in points, of a sum or difference of independent proportions in percent."""
    return math.sqrt(sum(value * (100 - value) for value in values) / n)


def significant(n: int, pairs: Iterable[tuple[float, float]], share: float = 1.0) -> int:
    """How many of the differences a - b are above 1.96 standard errors, these times `share`."""
    return sum(a - b > 1.959964 * share * error(n, a, b) for a, b in pairs)


def verdicts_above_0(n: int, pairs: Pairs) -> list[str]:
    """Verdicts on "each a above its b", where no difference is significantly below 0."""
    above, passing = sum(a > b for a, b in pairs), significant(n, pairs)
    assert significant(n, [(b, a) for a, b in pairs]) == 0
    outcome = "holds" if passing == len(pairs) else "undecided at this n"
    return [str(above == len(pairs)).lower(), f"{above} of {len(pairs)}", outcome, f"{passing} of {len(pairs)}"]


def verdicts_about_0(n: int, pairs: Pairs) -> list[str]:
    """Verdicts on "each a within one point of its b", where no interval lies inside and no p survives Holm."""
    near = sum(abs(round(a - b, 2)) <= 1 for a, b in pairs)
    assert all(abs(a - b) + 1.959964 * error(n, a, b) > 1 for a, b in pairs)
    # the smallest of m p-values must be below 0.05 / m; none is as far beyond the margin
    assert all((abs(a - b) - 1) / error(n, a, b) < NormalDist().inv_cdf(1 - 0.025 / len(pairs)) for a, b in pairs)
    return [str(near == len(pairs)).lower(), f"{near} of {len(pairs)}", "undecided at this n", f"0 of {len(pairs)}"]


def test_table_1_as_printed(text: str) -> None:
    value, found = printed("table1"), summary(text, "Paper")
    cells = [(backbone, level) for backbone in BACKBONES for level in LEVELS]

    def top(methods: Iterable[str], backbones: Iterable[str], level: int, metric: str = "top1") -> float:
        return max(value[method, backbone, level, metric] for method in methods for backbone in backbones)

    def pairs(methods: Iterable[str], other: str) -> Pairs:
        return [(value[method, *cell, "top1"], value[other, *cell, "top1"]) for method in methods for cell in cells]

    rest = ("none", *OTHERS)
    columns = [(level, metric) for metric in ("top1", "top5") for level in LEVELS]
    assert found[1] == verdicts_above_0(7900, pairs(OURS, "none"))
    by_column = [(top(OURS, BACKBONES, *column), top(rest, BACKBONES, *column)) for column in columns]
    assert found[2] == verdicts_above_0(7900, by_column)
    by_row = [(top(OURS, [b], *column), top(rest, [b], *column)) for b in BACKBONES for column in columns]
    assert found[3] == verdicts_above_0(7900, by_row)
    assert (85.07, 85.11) in by_column and {(85.07, 85.11), (98.32, 98.45)} < set(by_row)
    others = [(top(["sd_features"], [b], level), top([*rest, "sd_inpaint"], [b], level)) for b, level in cells]
    assert found[7] == verdicts_above_0(7900, others)
    assert found[6] == verdicts_about_0(7900, pairs(OURS, "cutmix"))
    assert found[8] == verdicts_about_0(7900, pairs(["sd_features"], "sd_inpaint"))
    swin = [
        (value[method, "swin", level, "top1"], value[method, "convnext", level, "top1"])
        for method in (*rest, *OURS)
        for level in LEVELS[1:]
    ]
    assert found[10] == verdicts_above_0(7900, swin)
    # claim 5: of the 8 cells above 0 % of loss, 7 agree and 3 are significant; more than 4 would be needed
    leads = [(top(OURS, [b], level), top(OTHERS, [b], level)) for b, level in cells if level > 0]
    assert sum(a > b for a, b in leads) == 7 and significant(7900, leads) == 3
    assert found[5] == ["true", "7 of 8", "undecided at this n", "3 of 8"]


def test_gains_of_table_1_as_printed(text: str) -> None:
    """Claim 4, the slopes of the gains, and claim 9, gains of one architecture less the other's."""
    value, found = printed("table1"), summary(text, "Paper")

    def gains(method: str, backbone: str) -> list[float]:
        return [value[method, backbone, level, "top1"] - value["none", backbone, level, "top1"] for level in LEVELS]

    for method in OURS:
        for backbone in BACKBONES:
            # slope per 10 % of loss: 10 sum (l - 40) gain / sum (l - 40)^2, and the squares sum to 4000
            weights = (-0.1, -0.05, 0.0, 0.05, 0.1)
            slope = sum(w * gain for w, gain in zip(weights, gains(method, backbone), strict=True))
            errors = [
                error(7900, value[method, backbone, x, "top1"], value["none", backbone, x, "top1"]) for x in LEVELS
            ]
            assert f"| {slope:+.2f} (" in block(section(text, "Table 1"), 4)
            assert slope > 3 * math.hypot(*(w * e for w, e in zip(weights, errors, strict=True)))
    assert found[4] == ["true", "4 of 4", "holds", "4 of 4"]
    between = {m: fmean(gains(m, "convnext")) - fmean(gains(m, "swin")) for m in (*OTHERS, *OURS)}
    assert sum(abs(difference) <= 1 for difference in between.values()) == 2
    # SD Features alone is beyond one point by more than Holm's |z| for 5 contrasts, 2.58
    z = {
        m: (between[m] - 1)
        / (error(7900, *(value[k, b, x, "top1"] for k in (m, "none") for b in BACKBONES for x in LEVELS)) / 5)
        for m in between
    }
    assert {m for m in z if z[m] > 2.576} == {"sd_features"} and sorted(z.values())[-2] < 2.498  # |z| for 4
    assert found[9] == ["false", "2 of 5", "fails", "0 of 5"]


def test_table_2_as_printed(text: str) -> None:
    value = {cell[:2]: top1 for cell, top1 in printed("table2").items()}
    found = summary(text, "Paper")
    over_none = [(value[m, b], value["none", b]) for m in (*OTHERS, *OURS) for b in BACKBONES]
    assert found[11] == verdicts_above_0(300, over_none)
    over_others = [(value[m, b], value[other, b]) for m in OURS for other in OTHERS for b in BACKBONES]
    true, agree, _, passing = verdicts_above_0(300, over_others)
    assert found[12] == [true, agree, "fails", passing] == ["false", "10 of 12", "fails", "0 of 12"]
    assert found[13] == verdicts_about_0(300, [(value["sd_features", b], value["sd_inpaint", b]) for b in BACKBONES])
    swin = [(value[m, "swin"], value[m, "convnext"]) for m in ("none", *OTHERS, *OURS)]
    assert found[14] == verdicts_about_0(300, swin)
    # with paired errors at 0.65 of these, 2 would pass uncorrected, and none after Holm: |z| > 2.87 for 12
    assert significant(300, over_others, 0.65) == 2 and "0.65 of these" in block(section(text, "Table 2"), 12)
    assert "2 of 12 would be." in block(section(text, "Table 2"), 12)
    assert "no claim of “about 0” can hold" in section(text, "Table 2") and "can hold" not in section(text, "Table 1")
    assert max((a - b) / (0.65 * error(300, a, b)) for a, b in over_others) < 2.86


def test_a_block_has_both_verdicts_and_the_cells_that_decide(text: str) -> None:
    printed_text = text.split("## This run")[0]
    assert "(85.07 < 85.11)" in block(printed_text, 2) and "(98.32 < 98.45)" in block(printed_text, 3)
    second = block(printed_text, 2).splitlines()
    assert second[0] == "Best in every column"
    assert second[4].startswith("- As printed: **false**. Contrasts that agree: 9 of 10. Contrary: top-1, 60 %: ")
    assert second[5] == (
        "- Supported by n = 7,900: **undecided at this n**. Contrasts that pass: 3 of 10; significantly contrary: 0."
    )
    assert sum(line.startswith("| top-") for line in second) == 10
    assert " 0 %" not in block(printed_text, 5)
    twelfth = block(printed_text, 12)
    assert "(87.10 < 87.89)" in twelfth and "(88.08 < 88.33)" in twelfth and "even uncorrected" in twelfth
    assert printed_text.count("taken as independent") == 2 and printed_text.count("about 0.65") == 2
    assert len(re.findall("^#### ", printed_text, flags=re.M)) == len(CLAIMS)


def test_printed_values_are_put_to_arithmetic(text: str) -> None:
    arithmetic = section(text, "What arithmetic")
    assert "Table 2: 10 of 12 values cannot equal k/300 rounded to two decimals." in arithmetic
    for value in ("82.03", "76.99", "86.71", "87.89", "85.41", "86.99", "87.10", "89.16", "90.06", "88.08"):
        assert f"| {value} | " in arithmetic
    assert "| 82.03 | None, ConvNeXt, top-1 | 246 (82.00) and 247 (82.33) | none of 2 to 5 |" in arithmetic
    assert "Table 1: 28 of 120 values cannot equal k/7,900 rounded to two decimals." in arithmetic
    assert "SD Inpaint, Swin, 0 %, top-5: 98.76; it rises to 98.91 at 20 % loss" in arithmetic


def test_a_share_of_n_is_recognised_whatever_the_rounding() -> None:
    for n in (3, 7, 300, 7900):
        for k in range(0, n + 1, max(1, n // 97)):
            assert is_share(float(f"{100 * k / n:.2f}"), n)
    brute = {f"{100 * k / 300:.2f}" for k in range(301)}
    for hundredths in range(0, 10_001, 7):
        assert is_share(hundredths / 100, 300) == (f"{hundredths / 100:.2f}" in brute)


@pytest.mark.parametrize(
    ("gain", "true", "outcome"),
    [(6.0, "true", "holds"), (-6.0, "false", "fails"), (0.0, "false", "undecided at this n")],
)
def test_verdicts_on_a_run(tmp_path: Path, gain: float, true: str, outcome: str) -> None:
    write_predictions(tmp_path, small_settings(), gain={"none": 0.0, "cutmix": 0.0, "sd_features": gain})
    found = summary(claims_of(tmp_path, small_settings(note=""), tmp_path), "This run: simulated")
    assert found[1][0] == true and found[1][2] == outcome
    assert found[8][0] == "not tested"  # SD Inpaint is not in this run


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_one_seed_is_said_beside_every_verdict(tmp_path: Path, seeds: list[int]) -> None:
    settings = small_settings()
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"seeds": tuple(seeds)})})
    write_predictions(tmp_path, settings)
    run = claims_of(tmp_path, settings, tmp_path).split("## This run")[1]
    verdicts = run.count("- Supported by n = 200")
    assert verdicts > 10
    assert run.count("With one seed") == (verdicts + 2 if len(seeds) == 1 else 0)


CONTROLS = {"black_out": 0.7, "sd_inpaint": 2.5, "fill_mean": 0.0, "sd_features": 0.7, "sd_features_placebo": 0.7}


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_run_shows_what_is_left_of_a_gain_when_the_control_has_the_rest(tmp_path: Path, seeds: list[int]) -> None:
    plain = small_settings().model_dump(mode="json")
    plain["training"] |= {"methods": ["none", *CONTROLS], "seeds": seeds}
    settings = parse(Settings, plain)
    write_predictions(tmp_path, settings, gain={"none": 0.0, **CONTROLS})
    text = claims_of(tmp_path, settings, tmp_path)
    assert "Less its control" not in text.split("## This run")[0]
    simulated = section(text, "simulated").split("#### Less its control")[1].split("#### ")[0]
    outcomes = dict(
        re.findall(r"^\| (SD [^|]*) \| \d of 6 \| \d of 6 \| 0 of 6 \| \*\*(.*)\*\* \|$", simulated, flags=re.M)
    )
    assert outcomes["SD Inpaint less Mean Fill"] == "holds" and len(outcomes) == 4
    assert outcomes["SD Features less SD Features, Placebo"] == "undecided at this n"
    assert ("With one seed" in simulated) == (len(seeds) == 1)
    number = r"([+-][\d.]+) \([+-][\d.]+ to [+-][\d.]+\)"
    line = rf"- Swin: SD Inpaint gains {number} over None, the control Mean Fill gains {number}; {number} is left\."
    own, control, left = map(float, re.findall(line, simulated)[0])
    assert left == pytest.approx(own - control, abs=0.11) and own > 20 > abs(control)
    assert "#### Less its control" in section(text, "real")


def test_methods_that_are_not_the_papers_decide_no_claim_of_it(tmp_path: Path) -> None:
    found = []
    for more in ((), ("sd_features_placebo", "fill_smooth")):
        plain = small_settings(note="").model_dump(mode="json")
        plain["training"]["methods"] = ["none", "cutmix", "sd_features", *more]
        settings = parse(Settings, plain)
        gain = {"none": 0.0, "cutmix": 0.2, "sd_features": 1.5, "sd_features_placebo": 3.0, "fill_smooth": 3.0}
        write_predictions(tmp_path, settings, gain=gain)
        text = claims_of(tmp_path, settings, tmp_path)
        found.append({number: cells[:2] for number, cells in summary(text, "This run: simulated").items()})
    assert found[0] == found[1] and found[0][7] == ["true", "6 of 6"]  # SD Features less the best of None and CutMix


def test_most_holds_by_as_many_as_are_needed_together() -> None:
    """Of 8 tests 5 are needed: the fifth smallest p counts four times."""
    accuracies = printed_accuracies("table1", 0.95, Settings().labels)

    def outcome(*z: float) -> str:
        effects = [Effect(value, value - 2, value + 2, 1.0, math.inf, value) for value in z]
        given = iter(effects)
        return judge("most above 0", [("", {})] * 8, accuracies._replace(contrast=lambda _: next(given)), 0.95).outcome

    assert outcome(9, 9, 9, 9, 2.4, 0, 0, 0) == "undecided at this n"  # p = 0.016, passes alone
    assert outcome(9, 9, 9, 9, 2.6, 0, 0, 0) == "holds"  # p = 0.009
    assert outcome(9, 9, 9, 9, 0, 0, 0, 0) == "undecided at this n"


def test_significantly_fails_without_a_significant_contrast_and_not_with_one(tmp_path: Path) -> None:
    for gain, outcome in ((0.0, "fails"), (3.0, "holds")):
        write_predictions(tmp_path, small_settings(), gain={"none": 0.0, "cutmix": 0.0, "sd_features": gain})
        text = claims_of(tmp_path, small_settings(note=""), tmp_path)
        assert summary(text, "This run: real")[12][2] == outcome


@pytest.mark.parametrize("more", [{"report": {"note": "demo"}}, {"report": {}, "data": {"drawn": {}}}])
def test_a_demo_states_no_verdict_on_the_paper(tmp_path: Path, more: dict[str, dict[str, object]]) -> None:
    plain = small_settings(note="").model_dump(mode="json")
    plain["report"] |= more["report"]
    plain["data"] |= more.get("data", {})
    write_predictions(tmp_path, small_settings())
    text = claims_of(tmp_path, parse(Settings, plain), tmp_path)
    for claim, cells in summary(text, "This run:").items():
        assert cells[0] == "not applicable: demo", claim
    run = text.split("## This run")[1]
    assert "#### Claim 1: " in run and "Contrasts that agree: " in run
    for verdict in ("true", "false", "holds", "fails", "undecided at this n"):
        assert f"**{verdict}**" not in run
    assert "**undecided at this n**" in text  # of the printed numbers


def test_claims_are_the_same_bytes_twice(text: str, tmp_path: Path) -> None:
    write_predictions(tmp_path / "evaluation", small_settings())
    assert claims_of(tmp_path / "evaluation", small_settings(), tmp_path) == text
    assert small_settings().report.note in text
