"""Builds the sdist, the wheel from the sdist, and runs the tests marked `wheel` against it, without the sources.

No network: the build uses what is installed, and the wheel's dependencies are those of the interpreter that runs this.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {"melanoma_infer", "mminfer_export", "mminfer_kernels"}
NEEDED = (
    "melanoma_infer/py.typed",
    "melanoma_infer/reports/result.schema.json",
    "melanoma_infer/reports/report.html.j2",
    "melanoma_infer/bundle/demo.mminfer/SHA256SUMS",
    "mminfer_kernels/py.typed",
    "mminfer_export/py.typed",
)
DEVELOPERS_ONLY = {"mminfer_proofs", "sanitizer", "tests", "benchmarks"}
"""Folders of the sources that no user needs."""


def main() -> None:
    """Build, look inside, install, test."""
    with tempfile.TemporaryDirectory(prefix="mminfer-package-") as name:
        place = Path(name)
        wheel = build(place)
        check_contents(wheel)
        check_reproducible(wheel, place)
        python = install(wheel, place / "venv")
        run_tests(python, place / "work")


def build(place: Path) -> Path:
    """The wheel, made from the sdist."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", ROOT],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (wheel,) = (place / "dist").glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Stop if the wheel ships other packages than ours, files for developers, or misses data files."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    if tops != TOP_LEVEL:
        sys.exit(f"the wheel's top-level names are {sorted(tops)}, not {sorted(TOP_LEVEL)}")
    if proofs := [name for name in names if DEVELOPERS_ONLY & set(name.split("/"))]:
        sys.exit(f"the wheel holds files that are for developers only: {proofs}")
    if missing := [name for name in NEEDED if name not in names]:
        sys.exit(f"the wheel misses {missing}")


def check_reproducible(wheel: Path, place: Path) -> None:
    """Stop if a second wheel, built from the sources instead of the sdist at another time, has other bytes."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place / "again", ROOT],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    if wheel.read_bytes() != (place / "again" / wheel.name).read_bytes():
        sys.exit("a wheel that was built twice differs")


def install(wheel: Path, venv: Path) -> Path:
    """The interpreter of a fresh environment that holds the wheel.

    Its dependencies are this interpreter's, added as a plain path: the editable install's own path file, which leads to
    the sources, is not followed from there.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel], check=True
    )
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run_tests(python: Path, work: Path) -> None:
    """Run the marked tests in a folder that holds nothing but the tests."""
    shutil.copytree(ROOT / "tests", work / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", work)
    files = [path for path in (work / "tests").rglob("test_*.py") if "mark.wheel" in path.read_text("utf-8")]
    command = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-m", "wheel", "-o", "pythonpath=tests"]
    command += ["-p", "no:cacheprovider", *sorted(files)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"MMINFER_WHEEL": "1"}
    finished = subprocess.run(command, cwd=work, env=environment)
    if finished.returncode:
        sys.exit(finished.returncode)


if __name__ == "__main__":
    main()
