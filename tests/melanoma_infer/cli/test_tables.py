"""Every table at 80 columns, with contents as long as they get: nothing is cut, and no line is too long."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module

import pytest

from melanoma_infer.bench.engines import EngineRow
from melanoma_infer.bench.kernels import KernelRow
from melanoma_infer.bench.roofline import Roofline
from melanoma_infer.bench.slide import BESIDE, IN_TURN, SlideTiming
from melanoma_infer.bundle.bundle import ParityRow, open_bundle
from melanoma_infer.card import PatientField
from melanoma_infer.cli import bundle as bundle_command
from melanoma_infer.cli import demo, doctor, export, tables, verify
from melanoma_infer.cli.tables import table
from melanoma_infer.engines.check import EngineCheck
from melanoma_infer.engines.parity_table import MeasuredParity

# The package names the commands, not these modules.
bench_engines, bench_kernels, bench_slide = (
    import_module(f"melanoma_infer.cli.bench.{name}") for name in ("engines", "kernels", "slide")
)

WHY = (
    "There is no NVIDIA driver here, so the tensorrt-rtx engine has no GPU to run on. It needs compute capability 8.6 "
    "and 12.5 GB of memory. Install it: pip install 'mminfer[tensorrt-rtx]' or use --engine openvino."
)
CHECKS = [
    EngineCheck("tensorrt-rtx", "fp32", "unavailable", None, WHY),
    EngineCheck("onnxruntime", "bf16", "differs", 3.4e-12, "1.32.0, tolerance 0.0001"),
]
SEALED = [
    ParityRow(
        engine="onnxruntime", precision="int8", tiles=1234, max_dp=1.2e-03, p999_dp=9.9e-04, max_dmm=0.012,
        p999_dmm=0.0113, decision_flips=1203, on="1234 tiles of 12 slides and 4 golden tiles, read at 3000 µm",
    )
]  # fmt: skip
MEASURED = [
    MeasuredParity(
        engine="tensorrt-rtx", precision="bf16", version="1.7.1", device="cuda:1", reference="torch fp32", on="drawn",
        tiles=1234, slides=12, max_dp=1.2e-03, p999_dp=1.1e-03, mean_dp=1.3e-04, features_rms=1.4e-02,
        p999_dlogit=1.5e-01, max_dmm=1.6e-02, p999_dattention=1.7e-02, cam_correlation=0.9987, decision_flips=1203,
        passed=passed,
    )
    for passed in (True, False)
]  # fmt: skip
LIMIT = Roofline(1.5, 1, {"fp32": 1234.0}, 1.0)
TIMED = [
    EngineRow("torch-eager-nchw", "fp32", 8, "channels-last", 1234.56, 1200.12, 1300.34, 12.34, 1.02, 1.2e-7, False),
    EngineRow("openvino", "bf16", 1, "", 33.91, 32.91, 35.91, None, None, 1.3e-3, True),
]
KERNELS = [
    KernelRow(
        "attention_tail",
        "kernel",
        "attention_tail",
        "fp32",
        "",
        "cuda",
        123456.0,
        123000.0,
        124000.0,
        12.34,
        0.87,
        1.2e-7,
        1.3e-6,
    )
]
SLIDE = SlideTiming(
    "openslide 4.0.1", "openvino", "int8", 2, 3, 100, 1234.5, 1.0, 1.0, 1.0, 1.0, 1.0,
    dict.fromkeys((*IN_TURN, *BESIDE), 1234.56), None, 1e-3, True,
)  # fmt: skip


def demo_with_a_long_card():
    bundle = open_bundle("demo")
    fields = tuple(
        PatientField(name=f"field_{number}", values=tuple(f"value_{number}_{k}" for k in range(9)))
        for number in range(4)
    )
    limits = "Not for sections thinner than 3 µm, nor for scanners above 0.55 µm/px; 0.3 % of 1,234 slides failed."
    return replace(bundle, card=bundle.card.model_copy(update={"limits": limits * 2, "patient_fields": fields}))


TABLES = {
    "doctor": lambda: doctor.checks_table(CHECKS),
    "bundle show": lambda: bundle_command.card_table(demo_with_a_long_card()),
    "bundle create": lambda: bundle_command.parity_table(SEALED),
    "export": lambda: export.parity_table(SEALED),
    "verify": lambda: verify.differences_table(MEASURED),
    "bench engines": lambda: bench_engines.engines_table(TIMED, LIMIT),
    "bench kernels": lambda: bench_kernels.table([row.cells for row in KERNELS], bench_kernels.HEADER),
    "bench slide": lambda: bench_slide.stages_table(SLIDE),
    "demo": lambda: demo.table(demo.NEXT),
}
MODULES = (doctor, bundle_command, export, verify, bench_engines, bench_kernels, bench_slide, demo)


@pytest.mark.parametrize("command", TABLES)
def test_at_80_columns_every_number_and_word_is_whole_and_no_line_is_longer(command, monkeypatch):
    sources: list[str] = []

    def noted(rows, header=(), *, width=None):
        sources.extend(cell for row in (header[1:], *rows) for cell in row)  # blocks need no name for their first cell
        return table(rows, header, width=width)

    for module in MODULES:
        monkeypatch.setattr(module, "table", noted)
    monkeypatch.setenv("COLUMNS", "80")
    text = TABLES[command]()
    assert max(map(len, text.splitlines())) <= 80, text
    digest = re.compile("[0-9a-f]{64}")
    words = [digest.sub(lambda found: found[0][:12], word) for source in sources for word in source.split()]
    assert words
    left = re.findall(r"\S+", text)
    trimmed = {word.rstrip(",:") for word in left} | set(left)
    assert {word for word in words if word not in trimmed and word.rstrip(",:") not in trimmed} == set(), text
    for number in re.findall(r"\d[\d.,]* (?:µm/px|µm|px|mm²|mm|GB|%|tiles)(?!\S)", " ".join(sources)):
        assert number in text, text


def test_a_table_that_fits_has_one_line_per_row_and_its_columns_are_aligned():
    text = table([("openvino", "1.2e-07"), ("x", "3.4e-02")], ("engine", "max |Δp|"), width=80)
    assert text == "engine    max |Δp|\nopenvino  1.2e-07\nx         3.4e-02"


def test_text_wraps_at_spaces_and_a_number_keeps_its_unit():
    text = table([("tiles", "read from the pyramid at 3000 µm in a window of 512 px")], width=38)
    assert text == "tiles  read from the pyramid at\n       3000 µm in a window of 512 px"


def test_columns_that_cannot_fit_become_blocks():
    header = ("engine", *(f"figure {number}" for number in range(8)), "")
    text = table([("openvino", *["1.2e-07"] * 7, "", "FAILED")], header, width=60)
    assert text == (
        "openvino: FAILED\n"
        "  figure 0 1.2e-07, figure 1 1.2e-07, figure 2 1.2e-07,\n"
        "    figure 3 1.2e-07, figure 4 1.2e-07, figure 5 1.2e-07,\n"
        "    figure 6 1.2e-07"
    )


def test_a_command_to_copy_is_never_broken():
    text = table(
        [("torch", f"It is missing here: {'x' * 8} pip install 'mminfer[torch]' and `mminfer doctor`.")], width=55
    )
    assert "pip install 'mminfer[torch]'" in text
    assert "`mminfer doctor`." in text


def test_names_and_values_that_cannot_stand_side_by_side_follow_each_other():
    text = table([("a name of many words indeed", "a value that is long enough to need two lines")], width=40)
    assert text == "a name of many words indeed: a value\n  that is long enough to need two lines"


def test_what_cannot_be_broken_is_left_whole():
    path = "/data/" + "x" * 100
    assert path in table([("path", path)], width=80)


@pytest.mark.parametrize(("columns", "expected"), [("57", 57), (None, 80)])
def test_the_width_is_the_terminal_s_and_80_where_there_is_none(monkeypatch, columns, expected):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.__stdout__", None)
    assert tables.terminal_width() == expected
