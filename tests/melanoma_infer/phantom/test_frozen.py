"""Version v1 of the phantom is frozen: the same seed and options give the same bits, here and on other processors."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import phantom_digests_for_tests
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # NumPy has no public list of these

from melanoma_infer.phantom.mark import GENERATOR

WIDE = re.compile("AVX2|AVX512|X86_V[34]")
PINNED = json.loads(Path(__file__).with_name("frozen-v1.json").read_text(encoding="utf-8"))


def test_v1_is_what_it_was():
    """A change here means another phantom: give the generator another name, or undo the change."""
    assert GENERATOR == "v1"
    assert phantom_digests_for_tests.digests() == PINNED


def test_a_processor_without_avx_draws_the_same_bits():
    wide = [name for name in __cpu_dispatch__ if __cpu_features__.get(name) and WIDE.search(name)]
    if not wide:
        pytest.skip(f"NumPy {np.__version__} dispatches to no AVX here")
    environment = os.environ | {
        "NPY_DISABLE_CPU_FEATURES": " ".join(wide),
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
    }
    program = (
        "import runpy\nfrom numpy._core._multiarray_umath import __cpu_features__ as features\n"
        f"assert not any(features[name] for name in {wide!r})\n"
        f"runpy.run_path({phantom_digests_for_tests.__file__!r}, run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300, check=True
    )
    assert json.loads(ended.stdout) == PINNED
