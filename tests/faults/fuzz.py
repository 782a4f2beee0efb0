"""Random annotation files for as long as one likes: `python -m tests.faults.fuzz --minutes 10`.

Each is read as the reader reads a user's file: it becomes an index that pycocotools opens, or one sentence. The first
that becomes anything else is printed, as small as hypothesis can make it, and ends the run with status 1.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.data.conftest import TENCH, coco, encoded, write
from tests.data.test_train_fuzz import mutate
from tests.faults.test_bad_input import check_document, documents


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good document with up to six values replaced, removed or repeated."""
    document = coco([f"{TENCH}_1.JPEG", f"{TENCH}_2.JPEG"])
    rng = random.Random(draw(st.integers(0, 2**64)))
    for _ in range(draw(st.integers(1, 6))):
        mutate(document, rng)
        if not all(document.get(key) for key in ("images", "annotations", "categories")):
            break
    return document


def fuzz(minutes: float) -> int:
    """Read random documents until the time is over; returns how many."""
    tried = 0
    with tempfile.TemporaryDirectory() as name:
        root = write(Path(name), {f"{TENCH}_{number}.JPEG": encoded() for number in (1, 2)})

        def check(document: Any) -> None:
            nonlocal tried
            tried += 1
            check_document(root, document)

        started, turn = time.monotonic(), 0
        while time.monotonic() - started < 60 * minutes:
            turn += 1
            budget = settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            seed(turn)(budget(given(document=documents | mutated())(check)))()
    return tried


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    print(json.dumps({"minutes": minutes, "documents": fuzz(minutes), "found": 0}))
