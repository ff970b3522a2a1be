from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from stages.taxonomy import load_taxonomy

HEADER = (
    "category,group,openimages_classes,audioset_classes,vggsound_classes,notes,openimages_generic"
)


def written(folder: Path, *rows: str, header: str = HEADER) -> str:
    path = folder / "mine.csv"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return str(path)


def test_the_shipped_list_has_eighty_categories_and_145_vggsound_labels() -> None:
    taxonomy = load_taxonomy()
    assert len(taxonomy.categories) == 80
    assert len({label for row in taxonomy.categories for label in row.vggsound}) == 145


@pytest.mark.parametrize(
    ("label", "categories"),
    [
        ("playing timpani", ["timpani"]),
        ("playing tympani", ["timpani"]),
        ("electric shaver, electric razor shaving", ["electric shaver"]),
        ("waterfall burbling", []),
        ("Playing timpani", []),
        ("no such label", []),
    ],
)
def test_a_vggsound_label_names_its_categories_exactly(label: str, categories: list[str]) -> None:
    assert load_taxonomy().of_vggsound(label) == categories


def test_one_label_may_belong_to_several_categories(tmp_path: Path) -> None:
    path = written(tmp_path, "puppy,animal,,,dog barking,,", "dog,animal,,,dog barking,,")
    assert load_taxonomy(path).of_vggsound("dog barking") == ["puppy", "dog"]


def test_every_name_of_the_shipped_list_is_in_its_vocabulary(shared: Path) -> None:
    def names(file: str, column: str) -> set[str]:
        with (shared / "data" / "taxonomies" / file).open(encoding="utf-8", newline="") as rows:
            return {row[column] for row in csv.DictReader(rows)}

    openimages = names("openimages_v7_classes.csv", "display_name")
    audioset = names("audioset_classes.csv", "display_name")
    for category in load_taxonomy().categories:
        assert {*category.openimages, *category.openimages_generic} <= openimages
        assert set(category.audioset) <= audioset


def test_the_digest_is_of_the_files_content(tmp_path: Path) -> None:
    one = load_taxonomy(written(tmp_path, "dog,animal,,,dog barking,,"))
    two = load_taxonomy(written(tmp_path, "dog,animal,,,dog howling,,"))
    assert len({one.digest, two.digest, load_taxonomy().digest}) == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["dog,animal,,,dog barking,,", "cat,animal,,,cat meowing;cat barking,,"],
            "row 3: vggsound_classes: 'cat barking' is not one of the 309 names",
        ),
        (["dog,animal,,,,,", "", "dog,pets,,,,,"], "row 4: category: 'dog' is in row 2 already"),
        ([" ,animal,,,,,"], "row 2: category: empty"),
        (["dog,animal"], "row 2: not 7 cells"),
        (["dog,animal,,,,,,,"], "row 2: not 7 cells"),
        (['dog,animal,,,"dog barking"x,,'], "after row 1: not a CSV"),
        ([], "no categories below the header"),
    ],
)
def test_a_bad_row_is_named_with_its_value(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_taxonomy(written(tmp_path, *rows))
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "dog,animal", header="category,group")
    with pytest.raises(UsageError, match=r"mine\.csv: no column openimages_classes"):
        load_taxonomy(path)


def test_a_missing_or_binary_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the target categories: No such file"):
        load_taxonomy(str(tmp_path / "none.csv"))
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_taxonomy(str(tmp_path / "x.csv"))
