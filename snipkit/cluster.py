"""Several machines: the workers of a Dask scheduler as an executor. Set-up and what to expect: ``docs/machines.md``."""

import contextlib
import warnings

import snipkit

SECONDS = 30  # to wait for the scheduler's answer
COMPARED = ("python", "torch")  # other versions give other last digits, no more


@contextlib.contextmanager
def connect(address):
    """Give an executor whose runs are done by the workers of a Dask scheduler, once there is a worker.

    A run whose worker is killed is done again by another. Workers may join and leave at any time.

    Args:
        address: of the scheduler, as ``dask scheduler`` prints it: "tcp://host:port".

    Raises:
        RuntimeError: ``distributed`` is not installed, there is no scheduler, or a machine has another version of snipkit.

    Warns:
        UserWarning: a machine has another version of Python or torch.
    """
    try:
        import distributed
    except ImportError:
        raise RuntimeError("several machines need the package distributed: pip install '.[cluster]' in snipkit's folder") from None
    try:
        client = distributed.Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`") from error
    with client:
        if not client.nthreads():
            print(f"{address} has no workers yet: waiting for the first", flush=True)
        client.wait_for_workers(1)
        compare(client.get_versions(packages=["torch", "snipkit"]))
        yield client.get_executor(pure=False, retries=2)


def compare(versions) -> None:
    """Compare what ``Client.get_versions`` gave of the scheduler and the workers with this process.

    Raises:
        RuntimeError: another snipkit somewhere, or none.

    Warns:
        UserWarning: another Python or torch somewhere.
    """
    others = {"the scheduler": versions["scheduler"]} | {f"the worker {name}": found for name, found in versions["workers"].items()}
    differing = []
    for name, found in others.items():
        theirs = _flat(found)
        if theirs.get("snipkit") != snipkit.__version__:
            raise RuntimeError(
                f"{name} has snipkit {theirs.get('snipkit') or '(none)'}, this machine {snipkit.__version__}: "
                "install the same on all machines"
            )
        ours = _flat(versions["client"])
        differing += [f"{name} has {what} {theirs.get(what)}, not {ours[what]}" for what in COMPARED if theirs.get(what) != ours[what]]
    if differing:
        warnings.warn("; ".join(differing) + ": results will differ in their last digits", stacklevel=3)


def _flat(versions):
    return versions["host"] | versions["packages"]
