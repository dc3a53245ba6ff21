"""A page's answers: Markdown templates, ``notebooks/answers/<name>.md``, filled from the records.

    At 98 %, random masks are {{ random_98 }} points worse than SNIP's (n = {{ random_98.n }}).

The sentence is written for a reader; every number that was measured is a placeholder. A name that
is not filled, and a value that no sentence uses, are errors, so that neither can be forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import jinja2.meta
import numpy as np
import pandas as pd

from snipkit.study import paths
from snipkit.study.report import statistics

ABSENT = "(not on record)"
WRITTEN_FOR = "overnight"  # the profile whose numbers the sentences were written for


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, as sentences show it.

    ``{{ gap }}`` is "2.4 ± 0.3", or "2.4" for one seed.

    Attributes:
        values: one number a seed, such as ``report.errors`` or ``report.gap`` gives; NaN where
            training diverged.
        digits: decimals.
    """

    values: pd.Series
    digits: int = 1

    def __str__(self):
        return statistics.cell(self.values, self.digits, ABSENT)

    @property
    def size(self) -> str:
        """The same without the sign of the mean, for "better by 2.4 ± 0.3"."""
        return str(self).removeprefix("-")

    @property
    def mean(self) -> str:
        """The mean alone."""
        return str(self).partition(" ±")[0]

    @property
    def range(self) -> str:
        """The lowest and the highest of the values, "3 to 79", where a mean would tell little."""
        if not len(self.values):
            return ABSENT
        return f"{self.values.min():.{self.digits}f} to {self.values.max():.{self.digits}f}"

    @property
    def lowest(self) -> str:
        """The lowest of the values, "3"."""
        return self.range.partition(" to ")[0]

    @property
    def highest(self) -> str:
        """The highest of the values, "79"."""
        return self.range.rpartition(" to ")[2]

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.values)


def folder() -> Path:
    """Where the templates lie: ``notebooks/answers/`` in the project's folder."""
    return paths.home() / "notebooks" / "answers"


def fill(name: str, values: Mapping[str, object], digits: int = 1) -> str:
    """The text of a template.

    Args:
        name: of the file, without ``.md``.
        values: placeholder → a text, a whole number, an ``Estimate``, or numbers by seed (an
            ``Estimate`` with ``digits`` decimals). Another number comes as a text,
            ``f"{slope:.2f}"``, since it does not say its digits.
        digits: decimals of the numbers by seed.

    Raises:
        FileNotFoundError: there is no such template.
        TypeError: a value of another kind, such as a float.
        ValueError: placeholders without a value, values without a placeholder, or broken braces.
    """
    path = folder() / f"{name}.md"
    if not path.exists():
        raise FileNotFoundError(
            f"no template {path}: write the answer there, with {{{{ names }}}} for its numbers"
        )
    source = path.read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    try:
        placeholders = jinja2.meta.find_undeclared_variables(environment.parse(source))
        if missing := sorted(placeholders - values.keys()):
            raise ValueError(f"{path.name} has placeholders without a value: {', '.join(missing)}")
        if unused := sorted(values.keys() - placeholders):
            raise ValueError(f"{path.name} has no placeholder for: {', '.join(unused)}")
        shown = {
            placeholder: _shown(placeholder, value, digits) for placeholder, value in values.items()
        }
        return environment.from_string(source).render(shown).strip()
    except jinja2.TemplateError as error:  # a brace too few, or a misspelt {{ gap.hight }}
        raise ValueError(f"{path.name}: {error}") from error


def render(name: str, values: Mapping[str, object], profile: str = WRITTEN_FOR, digits: int = 1):
    """``fill``, as Markdown for a notebook.

    Args:
        name, values, digits: see ``fill``.
        profile: the scale of the records; where the sentences were written for another, it says so.
    """
    from IPython.display import Markdown

    text = fill(name, values, digits)
    if profile != WRITTEN_FOR:
        scales = f"*The numbers are of the profile {profile}, the words of {WRITTEN_FOR}.*"
        text = f"{scales}\n\n{text}"
    return Markdown(text)


def _shown(placeholder, value, digits):
    """The value of a placeholder as templates take it."""
    if isinstance(value, pd.Series):
        return Estimate(value, digits)
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer | Estimate):
        kind = type(value).__name__
        raise TypeError(
            f"{placeholder} is a {kind}: pass a text with the digits it has, or numbers by seed"
        )
    return value
