from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from stages.taxonomy import audioset_classes, check_classes, load_taxonomy, seen_classes

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


def shipped_rows(shared: Path, file: str) -> list[dict[str, str]]:
    with (shared / "data" / "taxonomies" / file).open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def test_the_closure_equals_the_one_made_elsewhere(shared: Path) -> None:
    expected = {
        (row["category"], row["display_name"])
        for row in shipped_rows(shared, "target_categories_audioset_expanded.csv")
    }
    taxonomy = load_taxonomy()
    found = {(c, name) for name in audioset_classes() for c in taxonomy.of_audioset(name)}
    assert found == expected
    assert len(found) == 166


def test_vocabularies_are_in_the_order_of_the_models_outputs(shared: Path) -> None:
    for names, file in (
        (audioset_classes(), "audioset_classes.csv"),
        (seen_classes("openimages"), "openimages_v7_classes.csv"),
        (seen_classes("objects365"), "objects365_classes.csv"),
    ):
        rows = shipped_rows(shared, file)
        assert [int(row["index"]) for row in rows] == list(range(len(names)))
        assert [row["display_name"] for row in rows] == list(names)
    assert (len(audioset_classes()), len(seen_classes("openimages"))) == (527, 601)
    assert (len(seen_classes("coco")), len(seen_classes("objects365"))) == (80, 365)


@pytest.mark.parametrize(
    ("name", "categories"),
    [
        ("Man", ["male speech", "singing", "whistling"]),
        ("Woman", ["female speech", "singing", "whistling"]),
        ("Car", ["car", "police car"]),
        ("Drum", ["bass drum", "drum kit", "snare drum", "timpani"]),
        ("Person", []),
        ("Musical instrument", []),
        ("Tree", []),
    ],
)
def test_an_open_images_class_may_be_several_categories(name: str, categories: list[str]) -> None:
    assert sorted(load_taxonomy().of_seen("openimages").get(name, [])) == categories


def test_generic_classes_count_only_when_asked_for() -> None:
    taxonomy = load_taxonomy()
    exact, generic = (taxonomy.of_seen("openimages", kinds) for kinds in (False, True))
    assert sum(not c.seen["openimages"] for c in taxonomy.categories) == 19
    assert "clarinet" in generic["Musical instrument"]
    assert "Musical instrument" not in exact
    for name, categories in exact.items():
        assert set(categories) <= set(generic[name])


@pytest.mark.parametrize(
    ("vocabulary", "exact", "generic_alone"),
    [("openimages", 61, 19), ("coco", 18, 14), ("objects365", 41, 22)],
)
def test_each_vocabulary_says_what_it_names_exactly_and_what_only_as_a_kind(
    vocabulary: str, exact: int, generic_alone: int
) -> None:
    taxonomy = load_taxonomy()
    named, kinds = (
        {name for found in taxonomy.of_seen(vocabulary, generic).values() for name in found}
        for generic in (False, True)
    )
    assert named <= kinds
    assert (len(named), len(kinds - named)) == (exact, generic_alone)


def test_a_baby_is_a_person_only_as_a_kind_and_no_cake_is_a_drum() -> None:
    coco, kinds = (load_taxonomy().of_seen("coco", generic) for generic in (False, True))
    assert "person" not in coco
    assert "baby laughter" in kinds["person"]
    assert "cake" not in kinds
    assert coco["car"] == ["car", "police car"]


def test_a_list_may_lack_a_vocabulary_but_not_half_of_one(tmp_path: Path) -> None:
    old = load_taxonomy(written(tmp_path, "dog,animal,Dog,,,,"))
    with pytest.raises(UsageError, match="no columns coco_classes and coco_generic"):
        old.of_seen("coco")
    new = f"{HEADER},coco_generic,coco_classes"
    assert load_taxonomy(written(tmp_path, "dog,animal,,,,,,,dog", header=new)).of_seen("coco") == {
        "dog": ["dog"]
    }
    with pytest.raises(UsageError, match=r"row 2: coco_classes: 'hound' is not one of the 80"):
        load_taxonomy(written(tmp_path, "dog,animal,,,,,,,hound", header=new))
    with pytest.raises(UsageError, match="no column coco_generic; it needs"):
        load_taxonomy(written(tmp_path, "dog,animal,,,,,,dog", header=f"{HEADER},coco_classes"))


def test_the_classes_of_weights_are_a_vocabularys_in_its_order_and_in_known_spellings() -> None:
    names = dict(enumerate(seen_classes("coco")))
    check_classes(names, "coco", Path("x"))
    older = {3: "motorbike", 4: "aeroplane", 57: "sofa", 58: "pottedplant", 60: "diningtable"}
    check_classes(names | older | {62: "TVmonitor"}, "coco", Path("x"))
    for wrong in (
        names | {3: "airplane", 4: "motorcycle"},
        names | {57: "settee"},
        {place: f"LABEL_{place}" for place in names},
        {place: name for place, name in names.items() if place < 79},
        names | {80: "unicorn"},
    ):
        with pytest.raises(UsageError, match=r"x: class \d+ is .*, in COCO it is"):
            check_classes(wrong, "coco", Path("x"))


@pytest.mark.parametrize(
    ("name", "categories"),
    [
        ("Growling", ["cat", "dog", "lion"]),
        ("Hiss", ["cat", "snake"]),
        ("Bleat", ["goat", "sheep"]),
        ("Music", []),
        ("Speech", []),
        ("Siren", []),
        ("Police car (siren)", ["police car"]),
        ("Human sounds", []),
    ],
)
def test_descendants_activate_and_parents_do_not(name: str, categories: list[str]) -> None:
    assert sorted(load_taxonomy().of_audioset(name)) == categories


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
        (
            ["dog,animal,Dog;Puppy,,,,"],
            "row 2: openimages_classes: 'Puppy' is not one of the 601 names",
        ),
        (["dog,animal,Dog,Barking,,,"], "row 2: audioset_classes: 'Barking' is not one of the 527"),
        (["dog,animal,Dog,Bark,,,Pet"], "row 2: openimages_generic: 'Pet' is not one of the 601"),
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
