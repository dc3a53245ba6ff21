"""What a grader runs in place of a lab's own call of a check."""

import contextlib
import importlib.util
import io
import json
from pathlib import Path

from checks import common


def load(lab):
    """The module of a lab's checks, fresh from its file: whatever a notebook did to the other."""
    spec = importlib.util.spec_from_file_location(
        f"graded_{lab}", Path(__file__).with_name(f"{lab}.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(token, lab, name, call):
    """Print one line, of the token and what the check gave.

    Args:
        token: what the grader knows the line by; nobody else does.
        call: a function of the checks' module that calls the check with the student's answers.
    """
    output = io.StringIO()
    share = 0.0
    try:
        with contextlib.redirect_stdout(output):
            call(load(lab))
        share = 1.0
        lines = output.getvalue().strip().splitlines()
        says = lines[-1] if lines else "right"
    except common.Wrong as wrong:
        share, says = wrong.share, str(wrong)
    except KeyboardInterrupt:
        says = "it took too long and was stopped"
    except NameError as error:
        says = f"{error}: the cell that defines it did not run to its end"
    except BaseException as error:  # SystemExit, too: the notebook goes on
        says = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    print("\n" + token + json.dumps({"share": share, "says": says}), flush=True)
