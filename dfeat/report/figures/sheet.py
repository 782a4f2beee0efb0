"""The contact sheet: training images as they are, their parts, the hidden half black, and inpainted by the model.

What enters: a run's folder, up to its inpainted images. What leaves: `sheet.png` and `.svg`, drawn at the images' own
size from the index and the shards. The images are drawn at random by seed, whatever their class.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfeat.config import Settings
from dfeat.data.crops import view_keys
from dfeat.data.index import read_index
from dfeat.data.pixels import copies_in
from dfeat.errors import UserError
from dfeat.methods.method import Pixels
from dfeat.methods.paint import black_out
from dfeat.occlusion.parts import read_parts
from dfeat.places import TRAIN, Place
from dfeat.randomness import rng_for
from dfeat.report.figures.style import picture_grid
from dfeat.storage.shards import read_shard

COLUMNS: Final = 8
HIDDEN, KEPT = (230, 159, 0), (0, 114, 178)
"""Orange and blue of Okabe and Ito's palette, which colour-blind people can tell apart."""


def draw_sheet(results: Path, settings: Settings, out: Path) -> None:
    """Draw the contact sheet of COLUMNS training images of a run into `out`."""
    place = Place(results)
    index, parts = read_index(place.data(TRAIN)), read_parts(place.parts())
    having = [record for record in index.records if record.key in parts.rows]
    order = rng_for(settings.report.seed, index.set_name, "sheet").permutation(len(having))
    chosen = [having[place] for place in sorted(order[:COLUMNS])]
    filled = read_inpainted(results, {record.key for record in chosen})
    rows: list[list[Pixels]] = [[], [], [], []]
    for record in chosen:
        original, hidden = index.load(record), parts.mask(record.key)
        coloured = tinted(tinted(original, parts.mask(record.key, "object"), KEPT), hidden, HIDDEN)
        pictures = (original, coloured, black_out(original, hidden), filled[record.key])
        for row, picture in zip(rows, pictures, strict=True):
            row.append(picture)
    titles = [[record.key for record in chosen], [], [], []]
    picture_grid("sheet", ["Original", "Parts", "Occluded", "Inpainted"], rows, titles, settings, out)


def read_inpainted(results: Path, keys: set[str]) -> dict[str, Pixels]:
    """Read the inpainted training images of those keys, (H, W, 3) each at its own size; of several copies the first.

    Raises UserError where one is missing.
    """
    folder = Place(results).view("inpaint", TRAIN)
    found: dict[str, Pixels] = {}
    for path in sorted(folder.glob("*-of-*.h5")):
        shard = read_shard(path, "inpaint")
        images, copies = dict(zip(shard.keys, shard.payload, strict=True)), copies_in(shard)
        for key in keys:
            if encoded := images.get(view_keys(key, copies)[0]):
                found[key] = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    if missing := sorted(keys - found.keys()):
        raise UserError(f"{folder} lacks {len(missing)} images ({missing[0]}, ...); make them with `dfeat inpaint`")
    return found


def tinted(image: Pixels, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> Pixels:
    """The image (H, W, 3), its masked pixels replaced by the mean of their grey value and the colour."""
    grey = image.mean(axis=-1, keepdims=True)
    blend = (0.5 * grey + 0.5 * np.array(colour)).astype(np.uint8)
    return np.where(mask[..., None], blend, image)
