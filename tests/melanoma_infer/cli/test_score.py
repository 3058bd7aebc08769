"""`mminfer score` on real slides: commands and their results."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles_for_tests import colour_rule_card, make_bundle, outcome_graph, sometimes_nan_graph
from dicom_for_tests import RESAMPLED, write_ct, write_dicom
from kept_for_tests import kept, result_folders, run_records, summary_rows
from slides_for_tests import smooth, write_tiff

ZEROED = 4096


def rows_of(out: Path, stem: str = "") -> list[dict[str, str]]:
    (path,) = out.glob(f"{stem}*/tiles.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def codes(result: dict[str, Any]) -> set[str]:
    return {reason["code"] for reason in result["reasons"]}


@pytest.fixture
def damaged(cmu: Path, tmp_path: Path) -> Path:
    """The slide with 4 KiB zeroed at 40 % of the file."""
    content = bytearray(cmu.read_bytes())
    start = int(len(content) * 0.4)
    content[start : start + ZEROED] = bytes(ZEROED)
    path = tmp_path / "damaged.svs"
    path.write_bytes(content)
    return path


def test_a_slide_smaller_than_a_tile_gives_one_padded_tile_and_no_verdict(mminfer, result_of, cmu, tmp_path):
    ended = mminfer("score", cmu, "--out", tmp_path / "r")
    result = result_of(tmp_path / "r")
    assert ended.code == 0
    assert result["tiles"] == {"ok": 1, "unreadable": 0, "padded": 1, "not_evaluated": 0}
    assert result["verdict"] == "indeterminate"
    assert {"model-knows-only-phantoms", "mostly-padding"} <= codes(result)
    (row,) = rows_of(tmp_path / "r")
    assert (row["minx"], row["miny"], row["width"], row["height"]) == ("0", "0", "6012", "6012")
    assert float(row["padded_fraction"]) == pytest.approx(1 - 2220 * 2967 / 6012**2, abs=1e-6)
    assert result["thickness"]["state"] == "not-assessable"
    assert result["thickness"]["reason"]
    assert result["regions_note"] == "Drawn from the model's maps, 188 µm a cell."


def test_small_tiles_cover_the_tissue_and_leave_out_the_background(result_of, scored_256):
    rows = rows_of(scored_256)
    assert 8 <= len(rows) <= 20
    corners = [(int(row["miny"]), int(row["minx"])) for row in rows]
    assert corners == sorted(corners)
    # The left column and the top right corner of this slide are background.
    assert not any(x == 0 for _, x in corners)
    assert (0, 1539) not in corners
    assert "geometry-differs-from-card" in codes(result_of(scored_256))


def test_fluorescence_is_not_as_the_card_says(mminfer, result_of, real_slides, tmp_path):
    ended = mminfer("score", real_slides / "test3-dapi-2.ndpi", "--out", tmp_path / "r")
    result = result_of(tmp_path / "r")
    assert ended.code == 0
    assert result["verdict"] == "indeterminate"
    assert "stain-not-as-card" in codes(result)
    assert result["malignant_score"] is None


def test_an_implausible_scale_is_refused_and_the_flag_to_use_is_shown(mminfer, real_slides, tmp_path):
    ended = mminfer("score", real_slides / "boxes.tiff", "--out", tmp_path / "r")
    assert ended.code == 12
    assert "--mpp" in ended.err


def test_a_scale_entered_by_hand_is_in_the_result(mminfer, result_of, real_slides, tmp_path):
    assert mminfer("score", real_slides / "boxes.tiff", "--out", tmp_path / "r", "--mpp", "0.5,0.505").code == 0
    scale = result_of(tmp_path / "r")["scale"]
    assert (scale["x_um_per_px"], scale["y_um_per_px"], scale["source"]) == (0.5, 0.505, "override")
    assert scale["slide_x_um_per_px"] == pytest.approx(352.78, abs=0.01)


@pytest.mark.wheel
def test_a_text_file_named_like_a_slide_is_an_unknown_format(mminfer, tmp_path):
    (tmp_path / "letter.svs").write_text("Dear colleague")
    ended = mminfer("score", tmp_path / "letter.svs", "--out", tmp_path / "r")
    assert ended.code == 11
    assert "Traceback" not in ended.err


@pytest.mark.wheel
def test_a_missing_slide_is_unreadable(mminfer, tmp_path):
    ended = mminfer("score", tmp_path / "nowhere.svs", "--out", tmp_path / "r")
    assert ended.code == 10
    assert "No such file" in ended.err


def test_damage_in_one_place_costs_the_tiles_there_and_no_other(mminfer, result_of, damaged, tmp_path, scored_256):
    assert mminfer("score", damaged, "--out", tmp_path / "r", "--tile-um", "256").code == 0
    result = result_of(tmp_path / "r")
    assert result["tiles"]["unreadable"] > 0
    assert "hot-tiles-unreadable" in codes(result)
    for row, whole in zip(rows_of(tmp_path / "r"), rows_of(scored_256), strict=True):
        if row["status"] == "unreadable":
            assert row["prob_no_lesion"] == row["depth_mm"] == ""
        else:
            assert row == whole


def test_a_slide_whose_only_tile_is_damaged_is_unreadable(mminfer, damaged, tmp_path):
    ended = mminfer("score", damaged, "--out", tmp_path / "r")
    assert ended.code == 10
    assert not list((tmp_path / "r").glob("*/result.json"))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.75, 0.9, 0.99, 0.9997, 0.999999])
def test_a_truncated_copy_never_gives_a_result(mminfer, cmu, tmp_path, colour_bundle, share):
    content = cmu.read_bytes()
    (tmp_path / "cut.svs").write_bytes(content[: int(len(content) * share)])
    ended = mminfer("score", tmp_path / "cut.svs", "--out", tmp_path / "r", "--bundle", colour_bundle)
    assert ended.code in (10, 11)
    assert not list((tmp_path / "r").glob("*/result.json"))


def test_one_bad_slide_among_many_never_changes_the_others(mminfer, cmu, tmp_path, colour_bundle):
    names = ["a.svs", "b.svs", "c.svs"]
    (tmp_path / "in").mkdir()
    for name in (names[0], names[2]):
        shutil.copy2(cmu, tmp_path / "in" / name)
    (tmp_path / "in" / names[1]).write_text("not a slide")
    ended = mminfer("score", tmp_path / "in", "--out", tmp_path / "r", "--bundle", colour_bundle)
    (tmp_path / "in" / names[1]).unlink()
    alone = mminfer("score", tmp_path / "in", "--out", tmp_path / "alone", "--bundle", colour_bundle)
    assert (ended.code, alone.code) == (3, 0)
    assert "1 of 3 slides failed: b" in ended.err
    assert kept(tmp_path / "r") == kept(tmp_path / "alone")
    with (tmp_path / "r" / "summary.csv").open(newline="") as file:
        summary = list(csv.DictReader(file))
    assert [(row["id"], row["exit_code"]) for row in summary] == [("a", "0"), ("b", "11"), ("c", "0")]


def test_fail_fast_stops_at_the_first_failure(mminfer, skin, tmp_path):
    (tmp_path / "letter.svs").write_text("Dear colleague")
    ended = mminfer("score", tmp_path / "letter.svs", skin, "--out", tmp_path / "r", "--fail-fast")
    assert ended.code == 3
    assert not list((tmp_path / "r").glob("*/result.json"))


def test_a_finished_slide_is_skipped_and_a_changed_one_is_redone(mminfer, skin, tmp_path, colour_bundle):
    slide = tmp_path / "slide.svs"
    shutil.copy2(skin, slide)
    argv = ["score", slide, "--out", tmp_path / "r", "--bundle", colour_bundle]

    def skipped(*more: object) -> bool:
        ended = mminfer(*argv, *more)
        assert ended.code == 0
        return "already finished" in ended.out

    assert not skipped()
    assert skipped()
    assert not skipped("--overwrite")
    assert not skipped("--stride-um", "128")
    assert skipped("--stride-um", "128")
    assert not skipped("--stride-um", "128", "--specimen", "primary")
    os.utime(slide, ns=(1, 1))
    assert not skipped("--stride-um", "128", "--specimen", "primary")
    for tiles in (tmp_path / "r").glob("*/tiles.npz"):
        tiles.unlink()
    assert not skipped("--stride-um", "128", "--specimen", "primary")


def test_every_bundle_setting_and_patient_has_a_result_of_its_own(mminfer, skin, tmp_path, colour_bundle):
    """And a row in the summary. The first results stay byte for byte, with --overwrite under another name."""
    out, kept_before = tmp_path / "r", {}
    asked = (
        ["--bundle", colour_bundle], [], ["--aggregate", "max"], ["--age", "40"], ["--age", "80"], ["--hide-names"],
        ["--age", "40", "--overwrite"],
    )  # fmt: skip
    for options in asked:
        assert mminfer("score", skin, "--out", out, *options).code == 0
        now = {folder.name: (folder / "result.json").read_bytes() for folder in out.glob("[!.]*") if folder.is_dir()
               and (folder / "result.json").exists()}  # fmt: skip
        replaced = [path.read_bytes() for path in out.glob("replaced/*/result.json")]
        assert all(now.get(name) == content or content in replaced for name, content in kept_before.items())
        kept_before = now
    rows = summary_rows(out)
    assert len(rows) == len(asked)
    assert len({row["folder"] for row in rows}) == len(now) == len(asked) - 1
    assert len({(row["id"], row["bundle"], row["settings"], row["malignant_score"]) for row in rows}) == len(asked) - 1
    assert all(re.fullmatch(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["started"]) for row in rows)


def test_threads_change_no_byte_of_any_file(mminfer, cmu, tmp_path):
    outs = []
    for threads in (1, 3):
        out = tmp_path / str(threads)
        argv = ["score", cmu, "--out", out, "--tile-um", "256", "--engine", "openvino", "--threads", threads]
        assert mminfer(*argv, "--age", "63").code == 0
        outs.append(kept(out))
    assert outs[0] == outs[1]


def test_engines_agree_within_the_tolerance(mminfer, result_of, cmu, tmp_path, scored_256):
    assert result_of(scored_256)["numerics"]["engine"] == "openvino"
    outs = {"openvino": scored_256}
    for engine in ("torch", "onnxruntime"):
        outs[engine] = tmp_path / engine
        assert mminfer("score", cmu, "--out", outs[engine], "--tile-um", "256", "--engine", engine).code == 0
    probabilities = {}
    for engine, out in outs.items():
        rows = rows_of(out)
        probabilities[engine] = np.array([[float(row[f"prob_{name}"]) for name in DEMO_CLASSES] for row in rows])
    for engine in ("openvino", "onnxruntime"):
        assert np.abs(probabilities[engine] - probabilities["torch"]).max() <= 1e-4


DEMO_CLASSES = (
    "no_lesion",
    "benign_melanocytic",
    "melanoma_no_metastasis_recorded",
    "melanoma_metastasis_recorded",
)


def test_a_suspicion_is_stated_in_the_agreed_words(mminfer, result_of, cmu, tmp_path, colour_bundle):
    ended = mminfer("score", cmu, "--out", tmp_path / "r", "--bundle", colour_bundle, "--specimen", "primary")
    assert "Suspected tumour in evaluable tissue (score 1.00, threshold 0.50)" in ended.out
    result = result_of(tmp_path / "r")
    assert (result["verdict"], result["reasons"]) == ("suspected", [])


def test_a_result_without_a_finding_says_that_it_excludes_nothing(
    mminfer, result_of, cmu, tmp_path, strict_colour_bundle
):
    ended = mminfer("score", cmu, "--out", tmp_path / "r", "--bundle", strict_colour_bundle)
    assert "No suspected region in 99 % evaluable tissue. This does not exclude tumour." in ended.out
    assert result_of(tmp_path / "r")["verdict"] == "not-detected"


def test_a_bundle_with_nothing_but_probabilities_is_enough(mminfer, result_of, cmu, tmp_path, minimal_bundle):
    ended = mminfer("score", cmu, "--out", tmp_path / "r", "--bundle", minimal_bundle)
    result = result_of(tmp_path / "r")
    assert ended.code == 0
    assert result["verdict"] == "not-configured"
    assert codes(result) == {"model-undocumented", "no-threshold"}
    assert result["malignant_score"] is not None
    assert "melanoma" not in ended.out
    assert result["geometry"]["tile_um"] == 112.0
    assert result["tiles"]["ok"] > 50
    assert {row["depth_mm"] for row in rows_of(tmp_path / "r")} == {""}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--specimen", "metastasis"], "specimen-not-as-card"),
        (["--stain", "IHC"], "stain-not-as-card"),
        (["--tile-um", "300"], "geometry-differs-from-card"),
    ],
)
def test_a_difference_from_the_card_makes_the_verdict_indeterminate(
    mminfer, result_of, cmu, tmp_path, colour_bundle, options, code
):
    assert mminfer("score", cmu, "--out", tmp_path / "r", "--bundle", colour_bundle, *options).code == 0
    result = result_of(tmp_path / "r")
    assert (result["verdict"], codes(result)) == ("indeterminate", {code})


def test_another_aggregator_has_no_threshold(mminfer, result_of, skin, tmp_path, colour_bundle):
    assert mminfer("score", skin, "--out", tmp_path / "r", "--bundle", colour_bundle, "--aggregate", "max").code == 0
    result = result_of(tmp_path / "r")
    assert (result["verdict"], codes(result)) == ("not-configured", {"aggregator-differs-from-card"})


def test_a_scale_override_that_the_card_forbids_makes_the_verdict_indeterminate(mminfer, result_of, skin, tmp_path):
    bundle = make_bundle(tmp_path / "b.mminfer", colour_rule_card(allow_scale_override=False))
    assert mminfer("score", skin, "--out", tmp_path / "r", "--bundle", bundle, "--mpp", "0.499").code == 0
    assert codes(result_of(tmp_path / "r")) == {"scale-overridden"}


def test_json_prints_the_results_and_nothing_else(mminfer, cmu, real_slides, tmp_path):
    ended = mminfer("score", cmu, real_slides / "boxes_0.dcm", "--out", tmp_path / "r", "--json")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["id"] for line in lines] == ["cmu-1-small-region", "boxes_0"]
    assert {reason["code"] for reason in lines[1]["reasons"]} >= {"no-tissue"}


def test_a_refused_verdict_ends_with_4_and_keeps_the_result(mminfer, skin, tmp_path):
    ended = mminfer("score", skin, "--out", tmp_path / "r", "--fail-on", "indeterminate")
    assert ended.code == 4
    assert list((tmp_path / "r").glob("*/result.json"))


def test_a_dry_run_draws_the_grid_and_scores_nothing(mminfer, cmu, tmp_path):
    from PIL import Image

    ended = mminfer("score", cmu, "--out", tmp_path / "r", "--tile-um", "256", "--dry-run")
    assert ended.code == 0
    assert "17 tiles of 256 µm" in ended.out
    (picture,) = (tmp_path / "r").glob("*/*")
    assert picture.name == "grid.png"
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    blue = (pixels == (0, 110, 180)).all(axis=2)
    assert blue.sum() > 500
    # The tile in the second column begins at l0 1026 of 2220; its left edge is drawn there, in black.
    column = round(1026 / 2220 * pixels.shape[1])
    assert (pixels[:, column - 4 : column + 4].max(axis=2).min(axis=1) <= 20).mean() > 0.9


def test_a_phantom_model_is_refused_where_a_tissue_model_is_required(mminfer, cmu, tmp_path, colour_bundle):
    required = ["score", cmu, "--out", tmp_path / "r", "--require-tissue-model"]
    assert mminfer(*required).code == 20
    assert mminfer(*required, "--bundle", colour_bundle).code == 0


def test_hidden_names_leave_the_digest_alone(mminfer, skin, tmp_path):
    shutil.copy2(skin, tmp_path / "Erika Mustermann.svs")
    (tmp_path / "letter.svs").write_text("Dear colleague")
    argv = ["score", tmp_path / "Erika Mustermann.svs", tmp_path / "letter.svs", "--out", tmp_path / "r"]
    ended = mminfer(*argv, "--hide-names")
    written = b"".join(path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file())
    names = "".join(path.name for path in (tmp_path / "r").iterdir())
    assert ended.code == 3
    for word in ("Mustermann", "letter"):
        assert word not in ended.out + ended.err + names
        assert word.encode() not in written


@pytest.mark.wheel
def test_an_output_folder_that_is_a_file_is_refused(mminfer, tmp_path):
    (tmp_path / "r").write_text("")
    (tmp_path / "a.svs").write_text("")
    assert mminfer("score", tmp_path / "a.svs", "--out", tmp_path / "r").code == 14


@pytest.mark.wheel
@pytest.mark.parametrize(
    ("options", "code", "hint"),
    [
        (["--age", "163"], 13, "120"),
        (["--sex", "femal"], 13, "female"),
        (["--site", "bach"], 13, "unknown"),
        (["--ulceration", "maybe"], 13, "yes"),
        (["--patient", "sx=female"], 13, "sex"),
        (["--patient", "female"], 2, "KEY=VALUE"),
        (["--specimen", "frozen"], 13, "primary"),
        (["--stain", "purple"], 13, "H&E"),
        (["--mpp", "fine"], 2, "0.25"),
        (["--mpp", "25"], 10, ""),
        (["--tile-um", "-1"], 2, "--tile-um"),
        (["--aggregate", "median"], 2, "--aggregate"),
        (["--engine", "abacus"], 2, "openvino"),
        (["--precision", "fp8"], 2, "bf16"),
        (["--engine", "torch", "--precision", "int8"], 21, "fp32"),
        (["--engine-file", "a.engine"], 2, "tensorrt-rtx"),
        (["--device", "cuda"], 21, "--device"),
        (["--fail-on", "sorrow"], 2, "suspected"),
        (["--bundle", "nowhere"], 20, "demo"),
        (["--threads", "0"], 2, "threads"),
        (["--unknown-option"], 2, "unknown-option"),
    ],
)
def test_a_wrong_value_is_refused_with_what_to_do(mminfer, tmp_path, options, code, hint):
    ended = mminfer("score", tmp_path / "a.svs", "--out", tmp_path / "r", *options)
    assert ended.code == code
    assert hint in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("option", ["engine", "precision"])
def test_a_choice_that_does_not_exist_is_refused_in_one_line_with_all_choices(mminfer, tmp_path, option):
    ended = mminfer("score", tmp_path / "a.svs", "--out", tmp_path / "r", f"--{option}", "fp64")
    assert ended.code == 2
    last = ended.err.splitlines()[-1]
    assert last.startswith(f"mminfer: --{option} fp64: no such {option}. Choose from ")
    assert ("tensorrt-rtx" if option == "engine" else "fastest") in last


@pytest.mark.wheel
def test_no_slide_at_all_is_a_usage_error(mminfer, tmp_path):
    assert mminfer("score", "--out", tmp_path / "r").code == 2
    (tmp_path / "empty").mkdir()
    assert mminfer("score", tmp_path / "empty", "--out", tmp_path / "r").code == 2


def test_patient_values_change_the_score_and_are_in_the_result(mminfer, result_of, skin, tmp_path):
    assert mminfer("score", skin, "--out", tmp_path / "with", "--age", "71", "--site", "acral").code == 0
    assert mminfer("score", skin, "--out", tmp_path / "without").code == 0
    given, unknown = result_of(tmp_path / "with"), result_of(tmp_path / "without")
    assert given["patient"]["values"]["age"] == "70_and_over"
    assert given["patient"]["values"]["sex"] == "unknown"
    assert given["patient"]["malignant_score_without"] == unknown["malignant_score"]
    assert given["malignant_score"] != unknown["malignant_score"]
    assert unknown["patient"] is None


def test_patient_values_can_be_kept_out_of_every_file(mminfer, result_of, skin, tmp_path):
    argv = ["score", skin, "--out", tmp_path / "r", "--age", "71", "--no-patient-in-output"]
    assert mminfer(*argv).code == 0
    result = result_of(tmp_path / "r")
    assert result["patient"] is None
    assert "already finished" in mminfer(*argv).out
    other = ["score", skin, "--out", tmp_path / "r", "--age", "30", "--no-patient-in-output"]
    assert "already finished" not in mminfer(*other).out
    assert len(result_folders(tmp_path / "r")) == 2


def test_a_manifest_names_slides_patients_and_cases(mminfer, skin, tmp_path):
    shutil.copy2(skin, tmp_path / "one.svs")
    manifest = tmp_path / "cohort.csv"
    manifest.write_text("id,slide,case_id,age,sex,site,mpp\nA/1,one.svs,case 7,[34:36[,x,Trunk,0.25\n")
    ended = mminfer("score", "--patients", manifest, "--out", tmp_path / "r")
    assert ended.code == 0
    assert "manifest: line 2, column sex: 'x' is not allowed. Give female, male or unknown." in ended.err
    (folder,) = result_folders(tmp_path / "r")
    result = json.loads((folder / "result.json").read_text())
    assert folder.name.startswith("A_1-")
    assert (result["id"], result["case_id"]) == ("A/1", "case 7")
    assert result["patient"]["values"] | {"ulceration": ""} == {
        "age": "under_40", "sex": "unknown", "site": "trunk", "ulceration": "",
    }  # fmt: skip
    assert result["scale"]["x_um_per_px"] == 0.25


def test_a_slide_that_is_not_in_the_manifest_gets_nothing_of_a_slide_of_the_same_name(mminfer, skin, tmp_path):
    for folder in ("patientA", "patientB"):
        (tmp_path / folder).mkdir()
    shutil.copy2(skin, tmp_path / "patientA" / "1.svs")
    (tmp_path / "patientB" / "1.svs").write_bytes(skin.read_bytes() + b"another scan")
    manifest = tmp_path / "cohort.csv"
    manifest.write_text("slide,id,case_id,age,stain,mpp\npatientA/1.svs,1,CASE-A,82,IHC,0.25\n")
    ended = mminfer("score", tmp_path, "--patients", manifest, "--out", tmp_path / "r", "--tile-um", "256")
    assert ended.code == 0
    assert "1 slide not in the manifest, with all patient values unknown: 1-not-in-manifest" in ended.err
    results = {d["id"]: d for d in (json.loads(p.read_text()) for p in (tmp_path / "r").glob("*/result.json"))}
    listed, other = results["1"], results["1-not-in-manifest"]
    assert (listed["case_id"], listed["patient"]["values"]["age"], listed["stain"]) == ("CASE-A", "70_and_over", "IHC")
    assert set(other["patient"]["values"].values()) == {"unknown"}
    assert (other["case_id"], other["stain"], other["scale"]["x_um_per_px"]) == (None, None, pytest.approx(0.499))
    assert other["warnings"] == ["not in the manifest"]


def test_one_slide_filed_for_two_patients_gives_two_results_and_a_warning(mminfer, skin, tmp_path):
    for name in ("a.svs", "b.svs"):
        shutil.copy2(skin, tmp_path / name)
    manifest = tmp_path / "cohort.csv"
    manifest.write_text("slide,id,case_id,age\na.svs,S1,C1,82\nb.svs,S2,C2,30\n")
    argv = ["score", "--patients", manifest, "--hide-names", "--out", tmp_path / "r", "--tile-um", "512"]
    ended = mminfer(*argv)
    assert ended.code == 0
    assert "the same bytes are in 2 slides" in ended.err
    assert "S1" not in ended.out + ended.err
    found = [json.loads(path.read_text()) for path in sorted((tmp_path / "r").glob("*/result.json"))]
    ages = {result["case_id"]: result["patient"]["values"]["age"] for result in found}
    assert ages == {"C1": "70_and_over", "C2": "under_40"}
    assert all("the same bytes" in result["warnings"][0] for result in found)
    assert mminfer(*argv).out.count("already finished") == 2


def test_a_strict_manifest_is_refused_with_all_that_is_not_used(mminfer, skin, tmp_path):
    manifest = tmp_path / "cohort.csv"
    manifest.write_text(f"slide,age_years,sex\n{skin},82,x\n")
    ended = mminfer("score", "--patients", manifest, "--strict", "--out", tmp_path / "r")
    assert ended.code == 13
    assert "not used: age_years" in ended.err
    assert "line 2, column sex: 'x'" in ended.err
    assert not (tmp_path / "r").exists()
    assert mminfer("score", skin, "--strict").code == 2


def test_an_options_value_is_read_as_a_manifests(mminfer, skin, tmp_path):
    argv = ["score", skin, "--out", tmp_path / "r", "--tile-um", "512"]
    refused = mminfer(*argv, "--site", "left arm")
    assert refused.code == 13
    assert "Give head_neck, trunk, upper_limb, lower_limb, acral, mucosal or unknown" in refused.err
    assert mminfer(*argv, "--stain", "pink").err.strip().endswith("Give H&E, IHC, fluorescence, other or unknown.")
    assert mminfer(*argv, "--patient", "age=30", "--age", "82").code == 2
    assert mminfer(*argv, "--sex", "f", "--stain", "unknown").code == 0
    (result,) = (json.loads(path.read_text()) for path in (tmp_path / "r").glob("*/result.json"))
    assert (result["patient"]["values"]["sex"], result["stain"]) == ("female", None)


def test_a_plain_image_needs_its_scale(mminfer, result_of, tmp_path, colour_bundle):
    from PIL import Image

    pixels = np.full((1024, 1024, 3), 245, np.uint8)
    pixels[200:800, 100:700] = (150, 60, 120)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    argv = ["score", tmp_path / "photo.png", "--out", tmp_path / "r", "--bundle", colour_bundle]
    assert mminfer(*argv).code == 12
    assert mminfer(*argv, "--mpp", "0.5").code == 0
    assert result_of(tmp_path / "r")["tissue_mm2"] == pytest.approx((600 * 0.0005) ** 2, rel=0.05)


def _threshold(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "how": "set by hand"}


MEAN = {"aggregator": {"kind": "mean"}}
"""The mean of the colour rule over this slide's 17 tiles is between 0.2 and 0.9; the highest-scoring tile has 1."""


@pytest.mark.parametrize(
    ("card", "options", "expected"),
    [
        ({"trained": False}, [], {"model-untrained"}),
        ({"domain": "phantom"}, [], {"model-knows-only-phantoms"}),
        ({"padding_limit": 0.0}, [], {"mostly-padding"}),
        ({"evaluable_floor": 1.0}, [], {"low-evaluable-tissue"}),
        ({**MEAN, "threshold": _threshold(0.5, 0.0, 1.0)}, [], {"near-threshold"}),
        ({"tolerances": {"fp32": {"dp": 0.9, "dmm": 0.1}}}, [], {"engine-band"}),
        ({}, ["--tissue", "none.png"], {"no-tissue"}),
        ({}, ["damaged"], {"hot-tiles-unreadable", "low-evaluable-tissue"}),
        ({"threshold": None}, [], {"no-threshold"}),
        ({"training_data": " "}, [], {"model-undocumented"}),
    ],
)
def test_every_other_reason_is_reached_on_the_real_slide(
    mminfer, result_of, cmu, damaged, tmp_path, card, options, expected
):
    from PIL import Image

    Image.new("L", (222, 297)).save(tmp_path / "none.png")
    slide = damaged if options == ["damaged"] else cmu
    options = [
        str(tmp_path / option) if option.endswith(".png") else option for option in options if option != "damaged"
    ]
    bundle = make_bundle(tmp_path / "b.mminfer", colour_rule_card(**card))
    assert mminfer("score", slide, "--out", tmp_path / "r", "--bundle", bundle, *options).code == 0
    result = result_of(tmp_path / "r")
    assert codes(result) == expected
    unset = expected <= {"no-threshold", "model-undocumented"}
    assert result["verdict"] == ("not-configured" if unset else "indeterminate")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_outputs_that_are_not_finite_make_their_tiles_unreadable(mminfer, result_of, cmu, tmp_path, engine):
    card = colour_rule_card(evaluable_floor=0.0)
    bundle = make_bundle(tmp_path / "b.mminfer", card, sometimes_nan_graph(64, above=200.0), tiles_grey=(190, 170, 60))
    argv = ["score", cmu, "--out", tmp_path / "r", "--bundle", bundle, "--engine", engine]
    assert mminfer(*argv).code == 0
    result = result_of(tmp_path / "r")
    assert codes(result) == {"non-finite-output"}
    assert 0 < result["tiles"]["unreadable"] < 17
    intact = make_bundle(tmp_path / "whole.mminfer", card)
    argv = ["score", cmu, "--out", tmp_path / "whole", "--bundle", intact, "--engine", engine]
    assert mminfer(*argv).code == 0
    whole = {(row["minx"], row["miny"]): row for row in rows_of(tmp_path / "whole")}
    for row in rows_of(tmp_path / "r"):
        same = whole[row["minx"], row["miny"]]
        assert row["status"] == "unreadable" or row == same


@pytest.mark.parametrize(
    ("share", "state"), [(0.9, "above-threshold"), (0.5, "between-thresholds"), (0.1, "below-threshold")]
)
def test_the_outcome_is_placed_between_its_thresholds(mminfer, result_of, skin, tmp_path, share, state):
    card = colour_rule_card(
        classes=["normal", "melanoma", "melanoma_metastasis"],
        malignant=["melanoma", "melanoma_metastasis"],
        outcome={"name": "metastasis recorded", "classes": ["melanoma_metastasis"], "horizon": "5 years"},
        outcome_thresholds={"low": 0.3, "high": 0.7, "how": "set by hand"},
    )
    bundle = make_bundle(tmp_path / "b.mminfer", card, outcome_graph(64, share))
    assert mminfer("score", skin, "--out", tmp_path / "r", "--bundle", bundle).code == 0
    result = result_of(tmp_path / "r")
    assert (result["verdict"], result["outcome"]) == ("suspected", state)
    assert result["outcome_score"] == pytest.approx(share, abs=1e-5)
    assert result["outcome_name"] == "metastasis recorded within 5 years"


@pytest.mark.wheel
def test_a_bundle_with_one_flipped_byte_ends_with_20(mminfer, tmp_path):
    from melanoma_infer.bundle.contents import PACKAGED

    copy = shutil.copytree(PACKAGED / "demo.mminfer", tmp_path / "copy.mminfer")
    content = bytearray((copy / "model.fp32.onnx").read_bytes())
    content[1000] ^= 1
    (copy / "model.fp32.onnx").write_bytes(content)
    for command in (
        ["score", tmp_path / "a.svs", "--bundle"],
        ["bundle", "check"],
        ["bundle", "show"],
        ["doctor", "--bundle"],
    ):
        ended = mminfer(*command, copy)
        assert ended.code == 20
        assert "SHA256SUMS" in ended.err


def small_slide(path: Path, seed: int = 0) -> Path:
    """A slide of one tile, 256 × 256 px at 0.5 µm/px."""
    return write_tiff(path, smooth(256, 256, seed))


@pytest.mark.parametrize("options", [(), ("--json",), ("--hide-names",), ("--dry-run",)])
def test_a_name_that_is_not_utf8_is_scored_and_named_readably(mminfer, tmp_path, options):
    folder = tmp_path / "share"
    folder.mkdir()
    small_slide(Path(os.fsdecode(os.fsencode(folder) + b"/Pr\xe9l\xe8vement.tif")))
    (Path(os.fsdecode(os.fsencode(folder) + b"/d\xe9faut.svs"))).write_bytes(b"x")
    ended = mminfer("score", folder, "--out", tmp_path / "r", "--tile-um", "128", "--tissue", "all", *options)
    assert ended.code == 3
    (ended.out + ended.err).encode()
    if "--hide-names" not in options:
        assert r"d\xe9faut: failed" in ended.err
        assert "Pr\\xe9l\\xe8vement" in ended.out.replace("\\\\", "\\")
    if "--dry-run" not in options:
        (run,) = run_records(tmp_path / "r")
        assert run["state"] == "finished"
        assert [slide["exit_code"] for slide in run["slides"]] == [0, 11]
        assert [row["id"] for row in summary_rows(tmp_path / "r")] == [slide["id"] for slide in run["slides"]]


def test_rows_of_slides_with_the_same_name_name_their_folders(mminfer, tmp_path):
    for number, patient in enumerate(("patientA", "patientB")):
        (tmp_path / "in" / patient).mkdir(parents=True)
        small_slide(tmp_path / "in" / patient / "1.tif", seed=number)
    mminfer("score", tmp_path / "in", "--out", tmp_path / "r", "--tile-um", "128", "--tissue", "all")
    rows = summary_rows(tmp_path / "r")
    folders = [row["folder"] for row in rows]
    assert [row["id"] for row in rows] == ["1", "1"]
    assert sorted(folders) == [path.name for path in result_folders(tmp_path / "r")]
    assert [slide["folder"] for slide in run_records(tmp_path / "r")[0]["slides"]] == folders


def test_slides_that_cannot_be_opened_are_told_apart_where_names_are_hidden(mminfer, tmp_path):
    for folder, text in (("p1", b"one"), ("p2", b"another")):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "bad.svs").write_bytes(text)
    argv = ["score", tmp_path / "in", "--out", tmp_path / "r", "--tile-um", "128", "--tissue", "all"]
    for options in ((), ("--hide-names",)):
        assert mminfer(*argv, *options).code == 3
    rows = summary_rows(tmp_path / "r")
    digests = [row["digest"] for row in rows]
    assert digests[:2] == digests[2:]
    assert len(set(digests)) == 2
    assert [row["id"] for row in rows] == ["bad", "bad", *(digest[:8] for digest in digests[:2])]
    assert {row["settings"] for row in rows} == {"tile-um=128 tissue=all"}
    assert all(row["stage"] == "open" and row["message"].startswith("No reader knows this format") for row in rows)


def test_what_cannot_be_read_in_a_folder_is_named_and_counts_as_failed(mminfer, tmp_path):
    (tmp_path / "in").mkdir()
    small_slide(tmp_path / "in" / "good.tif")
    (tmp_path / "in" / "gone.svs").symlink_to("/nonexistent/gone.svs")
    ended = mminfer("score", tmp_path / "in", "--out", tmp_path / "r", "--tile-um", "128", "--tissue", "all")
    assert ended.code == 3
    assert "1 slide in 1 file, and 1 path that cannot be read" in ended.err
    assert "gone: failed at 'open' (exit 10): The link leads to no file" in ended.err
    assert len(list((tmp_path / "r").glob("good-*/result.json"))) == 1


@pytest.mark.parametrize(("identified", "named"), [(False, True), (True, False)])
def test_a_missing_companion_is_named_unless_the_slide_goes_by_another_id(mminfer, tmp_path, identified, named):
    (tmp_path / "Zebrastein.mrxs").write_bytes(b"x")
    (tmp_path / "cohort.csv").write_text("slide,id\nZebrastein.mrxs,S1\n")
    given = ("--patients", tmp_path / "cohort.csv") if identified else (tmp_path / "Zebrastein.mrxs",)
    for options in ((), ("--dry-run",)):
        ended = mminfer("score", *given, "--out", tmp_path / "r", *options)
        assert ended.code == 10
        assert ("The folder Zebrastein/ is missing" in ended.err) == named
        assert ("Zebrastein" in ended.err) == named


def test_two_dicom_slides_that_refer_to_the_same_series_are_two(mminfer, tmp_path):
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        write_dicom(tmp_path / "in" / f"I{number}", smooth(256, 256, number), series=f"1.2.{number}", refers="1.2.9")
    ended = mminfer("score", tmp_path / "in", "--out", tmp_path / "r", "--tile-um", "128", "--tissue", "all")
    assert ended.code == 0
    assert "2 slides in 2 files" in ended.err
    assert len(list((tmp_path / "r").glob("I*/result.json"))) == 2


def test_other_dicom_files_of_a_study_are_skipped_by_name_and_fail_nothing(mminfer, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_dicom(folder / "a.dcm", smooth(256, 256), series="1.2.1")
    write_ct(folder / "ct.dcm")
    argv = ("score", folder, "--out", tmp_path / "r", "--dry-run")
    ended = mminfer(*argv)
    assert ended.code == 0
    assert "skipped 1 DICOM file of other kinds than slides: ct.dcm (CT Image Storage)" in ended.err
    assert "ct.dcm" not in mminfer(*argv, "--hide-names").err
    assert mminfer("score", folder / "ct.dcm", "--out", tmp_path / "r").code == 11
    for number in range(7):
        write_ct(folder / f"ct{number}.dcm")
    assert "skipped 8 DICOM files of other kinds" in (told := mminfer(*argv).err)
    assert "ct3.dcm (CT Image Storage), 3 more" in told


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_dicom_slide_in_two_folders_is_no_result(mminfer, tmp_path, options):
    for name in ("one", "two"):
        (tmp_path / "in" / name).mkdir(parents=True)
    write_dicom(tmp_path / "in" / "one" / "a", smooth(512, 512), series="1.2.1")
    write_dicom(tmp_path / "in" / "two" / "b", smooth(256, 256), series="1.2.1", um_per_px=1.0, ImageType=RESAMPLED)
    ended = mminfer("score", tmp_path / "in", "--out", tmp_path / "r", "--tile-um", "128", *options)
    assert ended.code == 3
    assert "in another folder (two/). Copy all files of the slide into one folder." in ended.err
    assert not list((tmp_path / "r").glob("*/result.json"))
    hidden = mminfer("score", tmp_path / "in", "--out", tmp_path / "r", "--hide-names", *options)
    assert "two/" not in hidden.err


def test_a_dicom_slide_without_its_full_resolution_is_scored_with_a_warning_that_stays(mminfer, tmp_path):
    level = write_dicom(tmp_path / "b", smooth(256, 256), series="1.2.1", um_per_px=1.0, ImageType=RESAMPLED)
    out = tmp_path / "r"
    assert mminfer("score", level, "--out", out, "--tile-um", "128", "--tissue", "all", "--age", "35").code == 0
    (folder,) = out.glob("b-*")
    assert mminfer("rescore", folder, "--age", "71").code == 0
    results = [json.loads(path.read_text()) for path in out.glob("b-*/result.json")]
    assert len(results) == 2
    assert all("full-resolution image of this slide is not beside" in each["warnings"][0] for each in results)
