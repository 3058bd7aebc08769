"""Which manifest row is about which slide: never another slide's."""

import os
import shutil

import pytest
from bundles_for_tests import colour_rule_card

from melanoma_infer.errors import PatientValueError
from melanoma_infer.patients.manifest import read_manifest
from melanoma_infer.pipeline.cohort import match_rows, require_distinct_rows

CARD = colour_rule_card()


@pytest.fixture
def cohort(tmp_path):
    """Write a manifest, and slides of the given names beside it."""

    def write(text, *slides):
        for name in slides:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())
        (tmp_path / "cohort.csv").write_text(text)
        return read_manifest(tmp_path / "cohort.csv", CARD), [tmp_path / name for name in slides]

    return write


def matched(slides, manifest):
    return [match and (match.row.id, match.by_name) for match in match_rows(slides, manifest)]


def test_a_slide_is_found_by_its_path_however_it_is_spelt(cohort, tmp_path, monkeypatch):
    manifest, (one, two) = cohort("slide,id\n./a/x.svs,1\nb/../b/x.svs,2\n", "a/x.svs", "b/x.svs")
    (tmp_path / "link.svs").symlink_to(one)
    monkeypatch.chdir(tmp_path / "b")
    spelt = [one, tmp_path / "link.svs", tmp_path / "a" / ".." / "b" / "x.svs", type(two)("x.svs")]
    assert matched(spelt, manifest) == [("1", False), ("1", False), ("2", False), ("2", False)]


def test_a_slide_of_the_same_name_never_gets_the_row_of_a_slide_that_exists(cohort):
    manifest, (listed, other) = cohort("slide,id\na/1.svs,A\n", "a/1.svs", "b/1.svs")
    assert matched([listed, other], manifest) == [("A", False), None]
    assert matched([other], manifest) == [None]


def test_a_slides_own_row_comes_before_one_that_has_lost_its_slide(cohort):
    manifest, (slide,) = cohort("slide,id\nold/1.svs,B\na/1.svs,A\n", "a/1.svs")
    assert matched([slide], manifest) == [("A", False)]


def test_a_link_to_nowhere_is_still_the_path_of_its_row(cohort, tmp_path):
    manifest, (other,) = cohort("slide,id\na/1.svs,A\n", "b/1.svs")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.svs").symlink_to(tmp_path / "gone.svs")
    assert matched([other], manifest) == [None]


def test_a_row_whose_path_does_not_exist_is_found_by_name_if_one_slide_has_it(cohort):
    manifest, (one, two, three) = cohort(
        "slide,id\nC:\\\\old\\\\x.svs,X\n/old/y.svs,Y\n", "a/x.svs", "a/y.svs", "b/y.svs"
    )
    assert matched([one, two], manifest) == [("X", True), ("Y", True)]
    assert matched([one, two, three], manifest) == [("X", True), None, None]


def test_a_windows_path_is_its_file_and_not_the_others_of_that_name(cohort):
    manifest, slides = cohort("slide,id\np1\\1.svs,A\np2\\1.svs,B\n", "p1/1.svs", "p2/1.svs", "p3/1.svs")
    assert matched(slides, manifest) == [("A", False), ("B", False), None]


def test_a_name_is_the_same_with_its_letters_in_one_code_point_or_in_two(cohort):
    manifest, slides = cohort("slide,id\nold/Mü.svs,A\n", "new/Mu\u0308.svs", "newer/Mü.svs")
    assert matched(slides[:1], manifest) == [("A", True)]
    assert matched(slides, manifest) == [None, None]
    decomposed, slides = cohort("slide,id\nold/Mu\u0308.svs,A\n", "newer/Mü.svs")
    assert matched(slides, decomposed) == [("A", True)]


def test_two_rows_that_share_a_name_are_no_ones_where_both_paths_are_gone(cohort):
    manifest, (slide,) = cohort("slide,id\nold/1.svs,A\nolder/1.svs,B\n", "new/1.svs")
    assert matched([slide], manifest) == [None]


def test_a_row_may_name_any_file_of_a_dicom_series(cohort, real_slides, tmp_path):
    for name in ("boxes_0.dcm", "boxes_1.dcm"):
        shutil.copy(real_slides / name, tmp_path)
    manifest, _ = cohort("slide,id\nboxes_1.dcm,S\n")
    assert matched([tmp_path / "boxes_0.dcm"], manifest) == [("S", False)]
    moved, _ = cohort("slide,id\nold/boxes_1.dcm,S\n")
    assert matched([tmp_path / "boxes_0.dcm"], moved) == [("S", True)]
    both_moved, _ = cohort("slide,id\nold/boxes_0.dcm,S\nold/boxes_1.dcm,T\n")
    assert matched([tmp_path / "boxes_0.dcm"], both_moved) == [None]


def test_a_series_of_links_into_a_store_is_one_slide(cohort, real_slides, tmp_path):
    for number, name in enumerate(("boxes_0.dcm", "boxes_1.dcm")):
        stored = tmp_path / f"store{number}" / name
        stored.parent.mkdir()
        shutil.copy(real_slides / name, stored)
        (tmp_path / name).symlink_to(stored)
    manifest, _ = cohort("slide,id\nboxes_1.dcm,S\n")
    assert matched([tmp_path / "boxes_0.dcm"], manifest) == [("S", False)]
    for second in ("boxes_0.dcm", "store1/boxes_1.dcm"):
        twice, _ = cohort(f"slide,id\nboxes_1.dcm,S\n{second},T\n")
        with pytest.raises(PatientValueError, match="Lines 2 and 3 of the manifest name the same slide"):
            require_distinct_rows(twice)


def test_two_files_of_a_dicom_series_are_one_slide_in_two_rows(cohort, real_slides, tmp_path):
    for name in ("boxes_0.dcm", "boxes_1.dcm"):
        shutil.copy(real_slides / name, tmp_path)
    manifest, _ = cohort("slide,id\nboxes_1.dcm,S\nx.svs,X\nboxes_0.dcm,T\n")
    with pytest.raises(PatientValueError, match="Lines 2 and 4 of the manifest name the same slide"):
        require_distinct_rows(manifest)


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ("a.svs,2", "Lines 2 and 3 of the manifest name the same slide"),
        ("a.svs,1", "Lines 2 and 3 of the manifest name the same slide"),
        ("./a.svs,2", "Lines 2 and 3 of the manifest name the same slide"),
        ("{folder}/a.svs,2", "Lines 2 and 3 of the manifest name the same slide"),
        ("link.svs,2", "Lines 2 and 3 of the manifest name the same slide"),
        (".\\a.svs,2", "Lines 2 and 3 of the manifest name the same slide"),
        ("b.svs,1", "Lines 2 and 3 of the manifest have the same id"),
        ("sub,2", "Line 3 of the manifest names a folder"),
    ],
)
def test_a_slide_has_one_row_and_an_id_one_slide(cohort, tmp_path, second, says):
    os.symlink(tmp_path / "a.svs", tmp_path / "link.svs")
    (tmp_path / "sub").mkdir()
    manifest, _ = cohort(f"slide,id\na.svs,1\n{second.format(folder=tmp_path)}\n", "a.svs")
    with pytest.raises(PatientValueError, match=says) as caught:
        require_distinct_rows(manifest)
    assert caught.value.exit_code == 13


def test_slides_of_one_name_need_ids(cohort):
    manifest, _ = cohort("slide\na/x.svs\nb/x.svs\n", "a/x.svs", "b/x.svs")
    with pytest.raises(
        PatientValueError, match=r"Lines 2 and 3 of the manifest have the same id. Give every slide its own"
    ):
        require_distinct_rows(manifest)


def test_ids_that_look_the_same_are_the_same(cohort):
    manifest, _ = cohort("slide,id\na.svs,Mü\nb.svs,Mu\u0308\n", "a.svs", "b.svs")
    with pytest.raises(PatientValueError, match="Lines 2 and 3 of the manifest have the same id"):
        require_distinct_rows(manifest)


def test_copies_with_an_id_each_are_two_slides(cohort):
    manifest, slides = cohort("slide,id\na.svs,1\nb.svs,2\n", "a.svs", "b.svs")
    require_distinct_rows(manifest)
    assert matched(slides, manifest) == [("1", False), ("2", False)]
