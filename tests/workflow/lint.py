"""`snakemake --lint`, clean but for its demand of a container or conda environment for every rule.

The project installs one locked environment for all rules; an image that does not exist satisfies nobody.
"""

from __future__ import annotations

import subprocess
import sys

ACCEPTED = ("Specify a conda environment or container for each rule",)


def findings(text: str) -> list[str]:
    """The lint's bullet points that are not accepted, each with its rule or file."""
    found, where = [], ""
    for line in text.splitlines():
        if line.startswith("Lints for"):
            where = line.removeprefix("Lints for ").rstrip(":")
        bullet = line.strip()
        if bullet.startswith("* ") and not any(accepted in bullet for accepted in ACCEPTED):
            found.append(f"{where}: {bullet[2:]}")
    return found


def main() -> int:
    """Run the lint on the demo's configuration; 1 if anything but the accepted is found."""
    command = ["snakemake", "--lint", "--configfile", "config.yaml", "config/demo.yaml"]
    result = subprocess.run(command, capture_output=True, text=True)
    found = findings(result.stdout + result.stderr)
    crashed = result.returncode != 0 and "Lints for" not in result.stdout + result.stderr
    for line in found or ([result.stderr] if crashed else []):
        print(line)
    return 1 if found or crashed else 0


if __name__ == "__main__":
    sys.exit(main())
