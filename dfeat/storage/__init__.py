"""Files: atomic writes, digest records, HDF5 shards, and the provenance of artifacts."""
