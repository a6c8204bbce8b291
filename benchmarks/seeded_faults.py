"""Does the suite catch a fault? Seeds one in each of twelve places, and runs the tests.

    python benchmarks/seeded_faults.py            all twelve
    python benchmarks/seeded_faults.py torch a    those whose name begins with one of these words

Each fault is one changed line in a copy of the checkout. The fast tier runs first, on TensorFlow.
What it misses, the tests that may depend on the backend must catch, on the backend whose own file
has the fault. Each run ends at the first test that fails. Prints which tier caught the fault, by
which test, and after how long. Without a fault all tests must pass: run `pytest` first.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "runs", "*.egg-info")
# A worker of pytest-xdist ends only after the tests that it was sent.
SMALL_CHUNKS = ["--dist", "load", "--maxschedchunk", "10"]


@dataclass(frozen=True)
class Fault:
    name: str
    file: str  # in combined_losses/
    right: str
    wrong: str
    backend: str = "tensorflow"


FAULTS = [
    Fault("a sign", "losses/quantiles.py", "over * ops.relu(-error)", "over * ops.relu(error)"),
    Fault(
        "an axis",
        "_numerics/edges.py",
        "part(field, axis, 1, None) - part(field, axis, None, -1)",
        "part(field, -1, 1, None) - part(field, -1, None, -1)",
    ),
    Fault(
        "swapped arguments",
        "losses/regions/overlap.py",
        "self.fp_weight * fp + self.fn_weight * fn",
        "self.fp_weight * fn + self.fn_weight * fp",
    ),
    Fault(
        "a mask dropped",
        "_core/reduction.py",
        "if weight is not None",
        "if weight is not None and what != 'mask'",
    ),
    Fault(
        "a config key dropped",
        "_core/config.py",
        "for name in (*names, *base)}",
        "for name in (*names, *base[:-1])}",
    ),
    Fault(
        "sample weights of a view dropped",
        "wrappers/masks.py",
        "y_true=y_true, mask=_both(batch.mask, valid, label), mask_kind",
        "y_true=y_true, sample_weight=None, mask=_both(batch.mask, valid, label), mask_kind",
    ),
    Fault(
        "a rule",
        "weightings/projections.py",
        "aim = active if self.normalize else shortest / norms",
        "aim = shortest / norms if self.normalize else active",
    ),
    Fault(
        "a share",
        "diagnosis/summary.py",
        "np.nansum(sizes[[i, *self.siblings(i)]])",
        "np.nansum(sizes)",
    ),
    Fault("an epoch late", "callbacks/schedules.py", "self._set(epoch)", "self._set(epoch + 1)"),
    Fault(
        "TensorFlow's own file",
        "_backend/tensorflow.py",
        "of_b.append(-tf.reduce_sum(slope, axis=0))",
        "of_b.append(tf.reduce_sum(slope, axis=0))",
    ),
    Fault(
        "JAX's own file",
        "_backend/jax.py",
        "[upstream * gradient for gradient in gradients]",
        "[gradient for gradient in gradients]",
        "jax",
    ),
    Fault(
        "torch's own file",
        "_backend/torch.py",
        "*(upstream * gradient for gradient in ctx.gradients)",
        "*(gradient for gradient in ctx.gradients)",
        "torch",
    ),
]


def seed(fault, folder):
    """A copy of the checkout in `folder` that has the fault."""
    shutil.copytree(ROOT, folder, ignore=IGNORED)
    file = folder / "combined_losses" / fault.file
    text = file.read_text(encoding="utf-8")
    assert text.count(fault.right) == 1, f"{fault.name}: {fault.file} has changed, adapt FAULTS"
    file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")


def caught_by(folder, backend, *arguments):
    """The first test that fails in `folder`, or None."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", *SMALL_CHUNKS, *arguments],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    found = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    assert found or done.returncode == 0, done.stdout + done.stderr
    return found[0] if found else None


def try_one(fault):
    """Which tier catches a fault, and by which test."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        seed(fault, copy)
        test = caught_by(copy, "tensorflow")
        if test:
            return "fast tier", test
        test = caught_by(copy, fault.backend, "-m", "not backend_free and not browser")
        return (f"all tests, {fault.backend}", test) if test else ("NOT CAUGHT", "")


def main(words):
    chosen = [f for f in FAULTS if not words or any(f.name.startswith(word) for word in words)]
    missed = 0
    for fault in chosen:
        start = time.perf_counter()
        tier, test = try_one(fault)
        missed += not test
        print(f"{fault.name:33} {tier:22} {time.perf_counter() - start:4.0f} s  {test}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
