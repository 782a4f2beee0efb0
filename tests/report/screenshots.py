"""Pictures of a report for the documents: `python -m tests.report.screenshots results/demo/report/index.html docs/images`."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

VIEWS = {
    "report-desktop": ({"width": 1280, "height": 1500}, "light", ""),
    "report-phone": ({"width": 390, "height": 1400}, "light", ""),
    "report-dark": ({"width": 1280, "height": 1500}, "dark", "#gallery"),
}
"""Name -> window, colour scheme, and the section that is shown."""


def main(page: Path, out: Path) -> None:
    """Write `report-desktop.png`, `report-phone.png` and `report-dark.png`."""
    chromium = shutil.which("chromium") or sys.exit("chromium is not on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--disable-gpu"], chromium_sandbox=False)
        for name, (viewport, scheme, section) in VIEWS.items():
            view = browser.new_page(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
            view.goto(page.absolute().as_uri() + section)
            view.wait_for_selector(".chart svg")
            view.wait_for_selector("#gallery .controls:not([hidden])")
            view.evaluate("s => s && document.querySelector(s).scrollIntoView()", section)
            picture = Image.open(io.BytesIO(view.screenshot()))
            picture.convert("P", palette=Image.Palette.ADAPTIVE).save(out / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
