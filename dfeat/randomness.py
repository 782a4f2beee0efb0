"""Seeding: all random numbers derive from (seed, key, purpose), never from order or batch.

An image's noise, crop or partner is the same whatever its neighbours, shard, worker or device are.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, key: str, purpose: str) -> int:
    """A 63-bit seed for one use of random numbers on one record.

    `key` names the record (an image's key), `purpose` the use ("inpaint", "partner", ...).
    """
    digest = hashlib.blake2b(f"{seed}\x1f{key}\x1f{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def rng_for(seed: int, key: str, purpose: str) -> np.random.Generator:
    """A numpy generator seeded with `seed_for`."""
    return np.random.default_rng(seed_for(seed, key, purpose))
