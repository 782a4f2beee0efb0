"""Where the weights of a backbone lie. No torch here, so that `dfeat doctor` may ask as well."""

from __future__ import annotations

from pathlib import Path


def weights_path(path: str) -> Path:
    """The file of a backbone's weights; "demo:<name>" is one of those that ship with the package."""
    if path.startswith("demo:"):
        return Path(__file__).parents[1] / "demo" / "models" / f"{path[5:]}.safetensors"
    return Path(path).expanduser()
