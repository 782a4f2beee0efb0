"""Fixed arrays, and what statsmodels and scipy say of them: `python -m tests.report.reference` records it anew.

statsmodels is needed for recording alone, so it is no dependency; the version it was recorded with stands in the file.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).parent / "reference.json"
P_VALUES = [0.001, 0.8, 0.04, 0.0005, 0.04, 0.2, 0.012, 0.99, 1.0, 3e-9, 0.05]
PAIRS = [(0, 5), (1, 8), (12, 12), (40, 61), (3, 0), (200, 251)]
"""Images that only the first model gets right, and only the second."""


def models(only_a: int, only_b: int, both: int = 30, neither: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Two models with so many discordant images."""
    a = np.repeat([True, False, True, False], [only_a, only_b, both, neither])
    b = np.repeat([False, True, True, False], [only_a, only_b, both, neither])
    return a, b


def main() -> None:
    """Record."""
    import statsmodels
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportion_confint

    recorded = {
        "statsmodels": statsmodels.__version__,
        "holm": multipletests(P_VALUES, method="holm")[1].tolist(),
        "mcnemar": [float(mcnemar([[30, a], [b, 7]], exact=True).pvalue) for a, b in PAIRS],
        "clopper_pearson_all_of_100": [float(side) for side in proportion_confint(100, 100, method="beta")],
    }
    RECORDED.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()
