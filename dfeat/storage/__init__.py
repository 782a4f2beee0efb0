"""Common ground: the one way to write a file, HDF5 shards, and the provenance of what is written."""
