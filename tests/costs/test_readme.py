"""The table of docs/cost.md is what `dfeat plan` says; `python -m tests.costs.test_readme` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

from dfeat.config.files import read_settings
from dfeat.config.shards import stated_images
from dfeat.costs.measured import Speeds
from dfeat.costs.plan import Plan, make_plan

ROOT = Path(__file__).parents[2]
README, COSTS = ROOT / "README.md", ROOT / "docs/cost.md"
COLUMNS = (
    ("config.yaml", "A100"),
    ("config.yaml", "H100"),
    ("config/exact.yaml", "H100"),
    ("config/fast.yaml", "H100"),
    ("config/single-gpu.yaml", "T4"),
)
"""A file laid over config.yaml, and a card."""
TABLE = re.compile(r"^\| Step \| Work \|.*\n(?:\|.*\n)*", re.MULTILINE)


def plan_of(overlay: str, card: str) -> Plan:
    settings = read_settings([ROOT / "config.yaml", ROOT / overlay])
    return make_plan(settings, stated_images(settings), Speeds(card))


def table() -> str:
    """The table: a row for each step that computes on a device, with the work of config.yaml, and hours of each plan."""
    plans = [plan_of(*column) for column in COLUMNS]
    heads = [f"`{overlay}`, {card}" for overlay, card in COLUMNS]
    rows = [("Step", "Work", *heads), ("---", "---", *["---:"] * len(heads))]
    for costs in zip(*(plan.costs for plan in plans), strict=True):
        first = costs[0]
        if first.flops:
            each = first.flops / first.items / 1e12
            work = f"{first.items:,} x {each:,.0f} TFLOP" if each >= 9.95 else f"{first.items:,} x {each:.2g} TFLOP"
            hours = [str(cost.hours(plan.speeds)) for cost, plan in zip(costs, plans, strict=True)]
            rows.append((first.step, work, *hours))
    rows.append(("all", "", *(str(plan.hours) for plan in plans)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace("|  |", "| |")


def with_table(text: str) -> str:
    """The page with the table as it is now."""
    found = TABLE.findall(text)
    assert len(found) == 1, "docs/cost.md has no table of costs, or several"
    return TABLE.sub(lambda _: table(), text)


def test_the_table_of_costs_is_what_the_plan_says() -> None:
    text = COSTS.read_text(encoding="utf-8")
    assert text == with_table(text), "the costs changed: python -m tests.costs.test_readme"


def test_the_readme_names_the_same_hours_and_disk() -> None:
    plan, text = plan_of("config.yaml", "H100"), README.read_text(encoding="utf-8")
    gigabytes = re.search(r"^\| all \| \| ([\d.]+) \|$", COSTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert gigabytes is not None
    assert f"an estimate: {plan.hours.central:.0f} H100-hours, {float(gigabytes[1]):.0f} GB" in text


if __name__ == "__main__":
    COSTS.write_text(with_table(COSTS.read_text(encoding="utf-8")), encoding="utf-8")
