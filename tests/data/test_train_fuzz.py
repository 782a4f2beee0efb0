"""Annotation files with values replaced at random: a run ends with an index that pycocotools reads, or a sentence."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from dfeat.data.indexing import build_train_index
from dfeat.errors import UserError

from .conftest import MACAQUE, TENCH, coco, encoded, problems_of, train_set, write

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 10**60, 0.5, 1e308, float("nan"), float("-inf"), "", "0", "x", "../x", "\ud800",
    [], [[]], [1], {}, {"id": 0}, {"size": [16, 24], "counts": "0"}, [[0.0] * 8], [[1e9] * 8],
]  # fmt: skip


def mutate(node: Any, rng: random.Random) -> None:
    """Replace, remove or repeat one value somewhere below `node`."""
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.85:
            node = node[key]
            continue
        if rng.random() < 0.2:
            del node[key]
        elif isinstance(node, list) and rng.random() < 0.2:
            node.append(node[key])
        else:
            node[key] = json.loads(json.dumps(rng.choice(ODD)))
        return


def test_no_document_is_anything_but_an_index_or_a_sentence(tmp_path: Path) -> None:
    names = [f"{MACAQUE}_1.JPEG", f"{TENCH}_2.JPEG", f"{TENCH}_3.JPEG"]
    root = write(tmp_path / "set", {name: encoded() for name in names})
    rng = random.Random(0)
    built = 0
    for _ in range(150):
        document = coco(names)
        for _ in range(rng.randint(1, 4)):
            mutate(document, rng)
            if not all(document.get(k) for k in ("images", "annotations", "categories")):
                break
        (root / "train.json").write_text(json.dumps(document))
        try:
            index = build_train_index(train_set(root), tmp_path / "out")
        except UserError as error:
            assert "\n" not in str(error)
            continue
        built += 1
        annotations = COCO(str(index.annotations_path()))
        assert all(annotations.annToMask(a).any() for a in annotations.anns.values())
        assert len(index.records) == len(annotations.imgs)
        whole = len(annotations.anns) == 6 and len(index.records) == 3
        assert (
            whole
            or problems_of(tmp_path / "out")
            or any(len(document[k]) != n for k, n in (("images", 3), ("annotations", 6)))
        )
    assert built > 100
