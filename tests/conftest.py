"""Real slides, where there are any, and a cache of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from quarters_for_tests import QUARTERS, in_quarter


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quarter K` keeps a quarter of what is collected; `--fail-on-skip` is for machines that can run every test."""
    parser.addoption("--quarter", type=int, choices=QUARTERS, help="run this quarter of the tests")
    parser.addoption("--fail-on-skip", action="store_true", help="a skipped test fails; an expected failure does not")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With `--fail-on-skip`, turn a skip into a failure, so that a run in which nothing ran is not green."""
    report = yield
    if item.config.getoption("--fail-on-skip") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"{item.nodeid} was skipped: {call.excinfo and call.excinfo.value}"
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the quarter that was asked for, skip what this process or this machine cannot run, and say why."""
    if (quarter := config.getoption("--quarter")) is not None:
        kept = in_quarter((item.nodeid for item in items), quarter)
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
        items[:] = [item for item in items if item.nodeid in kept]
    reasons = {"interpreter": _no_interpreter(), "gpu": _no_gpu()} if items else {}
    for item in items:
        for marker, reason in reasons.items():
            if reason and marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


def _no_interpreter() -> str:
    on = os.environ.get("TRITON_INTERPRET") == "1"
    return "" if on else "kernels are interpreted only in a process with TRITON_INTERPRET=1"


def _no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "there is no CUDA device"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this machine's user has verified changes no test, and no test changes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_slides() -> Path:
    """The folder of real slides that MMINFER_TEST_SLIDES names."""
    folder = Path(os.environ.get("MMINFER_TEST_SLIDES", "../shared/slides"))
    if not folder.is_dir():
        pytest.skip("no real slides: MMINFER_TEST_SLIDES names no folder")
    return folder.resolve()


@pytest.fixture(scope="session")
def cmu(real_slides: Path) -> Path:
    """A section of skin, H&E, 2220 × 2967 px at 0.499 µm/px, one level."""
    path = real_slides / "cmu-1-small-region.svs"
    if not path.is_file():
        pytest.skip("no cmu-1-small-region.svs among the real slides")
    return path


@pytest.fixture(scope="session")
def skin(cmu: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of that section with tissue in it, 1024 × 1024 px at 0.499 µm/px: for what does not depend on its size."""
    import numpy as np
    from openslide import OpenSlide
    from slides_for_tests import write_svs

    with OpenSlide(cmu) as slide:
        pixels = np.asarray(slide.read_region((700, 900), 0, (1024, 1024)).convert("RGB"))
    return write_svs(tmp_path_factory.mktemp("skin") / "skin.svs", pixels, mpp="0.499", compression="jpeg")
