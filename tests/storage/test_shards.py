"""Shards: what is written is read back equal; what is damaged or foreign is refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from dfeat.data.pixels import PixelCache, cache_index
from dfeat.data.settings import PixelsStage
from dfeat.errors import UserError
from dfeat.storage.mapped import MappedRows
from dfeat.storage.records import record_path
from dfeat.storage.shards import Shard, read_rows, read_shard, write_shard
from tests.conftest import World

KEYS = ["n01_1", "ünïcode 'key'", "c"]


def features(keys: list[str] = KEYS, **changes: object) -> Shard:
    payload = np.arange(len(keys) * 4, dtype=np.float16).reshape(len(keys), 4)
    fields = {
        "kind": "features",
        "recipe": 1,
        "settings": {"t": 5},
        "model": "m" * 64,
        "keys": keys,
        "payload": payload,
    }
    return Shard(**{**fields, **changes})


def test_features_are_read_back_equal_and_have_the_documented_format(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.h5", features(extras={"seed": np.arange(3)}))
    shard = read_shard(tmp_path / "a.h5", "features", model="m" * 64)
    assert shard.keys == KEYS
    assert (shard.payload == features().payload).all()
    assert (shard.extras["seed"] == [0, 1, 2]).all()
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file) == {"key", "done", "feature", "seed"}
        assert set(file.attrs) == {"schema", "kind", "recipe", "settings", "model", "rows", "sha256"}
        assert file["feature"].chunks is None
        assert file["feature"].id.get_offset() is not None


def test_encoded_images_are_read_back_equal(tmp_path: Path) -> None:
    images = [b"\x89PNG one", b"two", b""]
    write_shard(tmp_path / "a.h5", features(kind="inpaint", payload=images))
    assert read_shard(tmp_path / "a.h5", "inpaint").payload == images


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        write_shard(tmp_path / name, features())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_flipped_byte_in_the_payload_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_shard(path, features())
    with h5py.File(path) as file:
        offset = file["feature"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="not what was written"):
        read_shard(path, "features")
    record_path(path).unlink()
    with pytest.raises(UserError, match="does not match its digest"):
        read_shard(path, "features")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_shard(path, features())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"make it again with `dfeat features`"):
        read_shard(path, "features")


def test_a_shard_of_another_model_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.h5", features())
    with pytest.raises(UserError, match="another model"):
        read_shard(tmp_path / "a.h5", "features", model="x" * 64)


def test_another_kind_an_unfinished_row_and_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_shard(path, features())
    with pytest.raises(UserError, match="not 'latents'"):
        read_shard(path, "latents")
    record_path(path).unlink()  # what follows has no record, as a file from elsewhere
    with h5py.File(path, "r+") as file:
        file["done"][1] = False
    with pytest.raises(UserError, match="not whole"):
        read_shard(path, "features")


@pytest.mark.parametrize("link", [h5py.ExternalLink("b.h5", "feature"), h5py.SoftLink("/done")])
def test_links_are_not_followed(tmp_path: Path, link: object) -> None:
    path = tmp_path / "a.h5"
    for name in ("a.h5", "b.h5"):
        write_shard(tmp_path / name, features())
    record_path(path).unlink()
    with h5py.File(path, "r+") as file:
        del file["feature"]
        file["feature"] = link
    with pytest.raises(UserError, match="link to elsewhere"):
        read_shard(path, "features")


def test_virtual_and_external_datasets_and_groups_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    (tmp_path / "raw").write_bytes(bytes(24))
    layout = h5py.VirtualLayout((3, 4), np.float16)
    layout[:] = h5py.VirtualSource(tmp_path / "missing.h5", "feature", (3, 4))
    makers = (
        lambda file: file.create_virtual_dataset("feature", layout, fillvalue=0),
        lambda file: file.create_dataset("feature", (3, 4), np.float16, external=[(tmp_path / "raw", 0, 24)]),
        lambda file: file.create_group("feature"),
    )
    for make in makers:
        write_shard(path, features())
        record_path(path).unlink()
        with h5py.File(path, "r+") as file:
            del file["feature"]
            make(file)
        with pytest.raises(UserError, match="no plain dataset"):
            read_shard(path, "features")


def test_a_dataset_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_shard(path, features())
    record_path(path).unlink()
    with h5py.File(path, "r+") as file:
        del file["feature"]
        file.create_dataset("feature", (3, 10 << 30), np.float16)
    with pytest.raises(UserError, match=r"claims 64,424,509,440 bytes, more than the file has"):
        read_shard(path, "features")


def test_rows_of_another_index_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_shard(path, features(index="a" * 64))
    assert read_shard(path, "features", index="a" * 64).index == "a" * 64
    with pytest.raises(UserError, match=r"another index .*make it again with `dfeat features`"):
        read_rows([path], "features", index="b" * 64)


def test_rows_that_are_not_finite_or_not_unique_are_never_written(tmp_path: Path) -> None:
    bad = features().payload.copy()
    bad[1, 2] = np.nan
    with pytest.raises(UserError, match="not finite"):
        write_shard(tmp_path / "a.h5", features(payload=bad))
    with pytest.raises(UserError, match="key appears twice"):
        write_shard(tmp_path / "a.h5", features(keys=["a", "a", "b"]))
    assert list(tmp_path.iterdir()) == []


def test_sister_shards_are_joined_and_strangers_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.h5", features(keys=["a", "b"]))
    write_shard(tmp_path / "b.h5", features(keys=["c"]))
    rows = read_rows([tmp_path / "a.h5", tmp_path / "b.h5"], "features")
    assert rows.row_of == {"a": 0, "b": 1, "c": 2}
    write_shard(tmp_path / "b.h5", features(keys=["c"], model="x" * 64))
    with pytest.raises(UserError, match="another model or other settings"):
        read_rows([tmp_path / "a.h5", tmp_path / "b.h5"], "features")
    write_shard(tmp_path / "b.h5", features(keys=["a"]))
    with pytest.raises(UserError, match="again in a sister shard"):
        read_rows([tmp_path / "a.h5", tmp_path / "b.h5"], "features")


@pytest.mark.parametrize("names", ["a", "abc"])
def test_rows_that_do_not_fit_in_memory_are_mapped_and_read_the_same(tmp_path: Path, names: str) -> None:
    sizes = {"a": 5, "b": 0, "c": 3}
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.h5" for name in names]
    for name, path in zip(names, paths, strict=True):
        keys = [f"{name}{row}" for row in range(sizes[name])]
        write_shard(path, features(keys=keys, payload=rng.normal(size=(len(keys), 7)).astype(np.float16)))
    loaded, mapped = read_rows(paths, "features"), read_rows(paths, "features", fits=0)
    assert isinstance(loaded.payload, np.ndarray)
    assert isinstance(mapped.payload, MappedRows)
    assert mapped.row_of == loaded.row_of
    assert mapped.payload.shape == loaded.payload.shape
    for payload in (mapped.payload, pickle.loads(pickle.dumps(mapped.payload))):
        order = rng.permutation(len(loaded.payload)).tolist()
        assert (payload[order] == loaded.payload[order]).all()
        assert (payload[np.array(order)] == loaded.payload[order]).all()
        assert all((payload[row] == loaded.payload[row]).all() for row in (*order, -1))
        assert payload[order[:0]].shape == (0, 7)
        with pytest.raises(IndexError):
            payload[len(order)]
    assert len(pickle.dumps(mapped.payload)) < 2000


@pytest.mark.parametrize("fits", [None, 0])
def test_a_damaged_row_is_found_however_rows_are_read(tmp_path: Path, fits: int | None) -> None:
    path = tmp_path / "a.h5"
    write_shard(path, features())
    read_rows([path], "features", fits=fits)
    with h5py.File(path, "r+") as file:
        file["feature"][1, 2] = 77
    with pytest.raises(UserError, match="is not what was written"):
        read_rows([path], "features", fits=fits)


def test_a_missing_shard_is_named_with_the_verb_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make it with `dfeat latents`"):
        read_shard(tmp_path / "none.h5", "latents")


def test_the_pixel_cache_is_resized_as_it_is_told(world: World, tmp_path: Path) -> None:
    from dfeat.data.index import read_index

    stage = PixelsStage(short_side=40, interpolation="bilinear")
    cache_index(world.train, stage, tmp_path / "pixels.h5")
    record = read_index(world.train).records[0]
    picture = Image.fromarray(read_index(world.train).load(record))
    wanted = np.asarray(picture.resize((40, 40), Image.Resampling.BILINEAR))
    assert (PixelCache(tmp_path / "pixels.h5")[record.key] == wanted).all()


def test_the_pixel_cache_gives_each_image_and_finds_damage(world: World, tmp_path: Path) -> None:
    from dfeat.data.index import read_index

    path = tmp_path / "pixels.h5"
    cache_index(world.train, world.stage("pixels"), path)
    index, cache = read_index(world.train), PixelCache(path)
    for record in index.records[:5]:
        assert (cache[record.key] == index.load(record)).all()
    content = bytearray(path.read_bytes())
    content[cache._at + 1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match="not what was written"):
        PixelCache(path)
    record_path(path).unlink()
    with pytest.raises(UserError, match="was damaged"):
        PixelCache(path)
