"""Numbers printed in the paper and in papers that followed it; README.md says where each stands."""

from pathlib import Path

import pandas as pd


def table(name: str) -> pd.DataFrame:
    """The numbers in ``<name>.csv``."""
    return pd.read_csv(Path(__file__).parent / f"{name}.csv")


def earlier_verdicts() -> pd.DataFrame:
    """What the earlier rule said of each claim, by claim: exploratory runs, now history."""
    path = Path(__file__).parent / "earlier_verdicts.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("claim")
