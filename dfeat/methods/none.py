"""None: fine-tuning alone; a twin is the original in another crop [Sec. 4.2]."""

from __future__ import annotations

from dfeat.methods.method import Method

NONE = Method(name="none", title="None", colour="#000000", marker="o")
