"""No module writes a file or opens a shard in a way of its own: everything goes through `storage`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "dfeat"
WRITERS = {
    "write_text",
    "write_bytes",
    "save_pretrained",
    "savefig",
    "save_file",
    "to_csv",
    "imsave",
    "tofile",
    "savez",
}
ALLOWED = {
    "storage/atomic.py": "the writer itself",
    "devices.py": "locks of devices, which hold nothing",
}


def written_alone(tree: ast.AST) -> Iterator[str]:
    """Calls that write to a path of their own: methods that take a file name, and `open` for writing."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        method = isinstance(node.func, ast.Attribute)
        modes = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        if (
            (
                name == "open"
                and any(isinstance(mode, str) and set(mode) & set("wax+") and len(mode) < 4 for mode in modes)
            )
            or (method and name in WRITERS and not _to_memory(node))
            or (method and name == "save" and not _to_memory(node))
        ):
            yield f"{ast.unparse(node)[:60]} (line {node.lineno})"


def _to_memory(call: ast.Call) -> bool:
    """Whether the first argument is a buffer in memory or a temporary folder, whose content the writer takes on."""
    first = ast.unparse(call.args[0]) if call.args else ""
    return first in {"buffer", "folder"}


def test_nothing_but_the_writer_writes() -> None:
    found = {
        (name, call)
        for path in PACKAGE.rglob("*.py")
        if not {name := path.relative_to(PACKAGE).as_posix(), name.partition("/")[0]} & ALLOWED.keys()
        for call in written_alone(ast.parse(path.read_text()))
    }
    assert not found


def test_one_module_opens_hdf5_and_without_locks() -> None:
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "h5py.File(" in path.read_text()}
    assert found == {"storage/shards.py"}
    opened = re.findall(r"h5py\.File\((.*)\)", (PACKAGE / "storage/shards.py").read_text())
    assert len(opened) == 2 and all("locking=False" in arguments for arguments in opened)
