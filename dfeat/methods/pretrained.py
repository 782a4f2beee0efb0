"""A backbone before fine-tuning, read out for the run's classes: a row of the tables, no method of training."""

from __future__ import annotations

from dfeat.methods.method import Method

PRETRAINED = Method(name="pretrained", title="Before fine-tuning", colour="#888888", marker="X")
