"""A released clip is what was measured, and one that cannot be made stops no other."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow.parquet as parquet
import pytest

from exports.release.clip_checks import differences_of_clip
from exports.release.freeze import write_checksums
from exports.release.selection import ReleaseTables
from exports.verify.checks import unmeasured
from exports.verify.verify_release import verify_release
from pipeline.config import SampleConfig
from pipeline.errors import AvatarBuildError
from pipeline.media import Media, Picture, SoundTrack, decode_pictures, encode_film, read_timeline
from pipeline.release.document import Document, from_json
from pipeline.release.layout import DOCUMENT
from pipeline.workspace.storage import Storage
from tests.exports.drawn import CAT, DOG, TRAIN, release, tables
from tests.video_factory import Drawing, bursts, edited, make_video

SOUND = bursts(5, [0.3, 1.45, 2.2, 2.8, 3.3, 4.1])
SWIFT = {"preset": "veryfast"}
Draw = Callable[[Path, int], Path]
YOUNGER = ("clip_rms_per_second", "clip_made", "clip_first_s", "clip_frames")


def slow(seed: int) -> Drawing:
    """Soft spots that drift by a pixel a frame: frames side by side are much alike."""
    texture = np.random.default_rng(seed).normal(size=(48, 64, 3))
    soft = cv2.GaussianBlur(texture, (0, 0), 5)
    spots = cv2.normalize(soft, np.empty(0), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return lambda number: np.ascontiguousarray(np.roll(spots, number, 1))


def h264(path: Path, seed: int) -> Path:
    return make_video(path, frames=120, draw=slow(seed), sound=SOUND, b_frames=2, options=SWIFT)


def vp8(path: Path, seed: int) -> Path:
    made = make_video(
        path.with_suffix(".webm"),
        frames=120,
        draw=slow(seed),
        sound=SOUND,
        codec="libvpx",
        options={"deadline": "realtime", "cpu-used": "8"},
        sound_codec="libopus",
    )
    return made.rename(path)


def twice(path: Path, seed: int) -> Path:
    """A part of the file is played again, in the middle of the clip."""
    return edited(h264(path.with_suffix(".whole.mp4"), seed), path, [(0.0, 1.6), (0.4, 4.4)])


def drawn(storage: Storage, draws: dict[str, Draw], rows: ReleaseTables) -> ReleaseTables:
    """The tables as the sample stage would have them for these videos."""
    files: dict[str, Path] = {}
    videos, clips, frames = [], [], []
    folder = storage.path("scratch")
    folder.mkdir(parents=True, exist_ok=True)
    for seed, video in enumerate(row for row in rows.videos if row.video_id in draws):
        path = draws[video.video_id](folder / f"{video.video_id}.mp4", seed)
        data = path.read_bytes()
        storage.write(video.path, data)
        files[video.video_id] = storage.path(video.path)
        facts = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        videos.append(video.model_copy(update=facts))
    for clip in (row for row in rows.clips if row.video_id in draws):
        sound = energy(files[clip.video_id]).span(1, 3)
        rms = [float(value) for value in sound.rms_per_second()]
        clips.append(clip.model_copy(update={"rms_per_second": rms}))
    for frame in (row for row in rows.frames if row.video_id in draws):
        path = files[frame.video_id]
        timeline = read_timeline(Media(path))
        first = timeline.between(Fraction(1), Fraction(3)).start
        picture = next(shown(path, first + frame.frame_index))
        data = picture.encode("png", 95)
        name = frame.path.replace(".jpg", ".png")
        storage.write(name, data)
        loud = energy(path).span(1, 3).short_time_rms(5)
        near = max(0, round((float(picture.time) - 1.3) * 100))
        at = near + int(np.argmax(loud[near : near + 60]))
        frames.append(
            frame.model_copy(
                update={
                    "path": name,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "time_s": float(picture.time),
                    "event_time_s": 1 + (at + 2.5) / 100,
                    "event_rms": float(loud[at]),
                }
            )
        )
    ids = {frame.frame_id for frame in frames}
    return replace(
        rows,
        videos=videos,
        clips=clips,
        frames=frames,
        **{
            name: [row for row in getattr(rows, name) if row.frame_id in ids]
            for name in ("reviews", "instances", "masks")
        },
    )


def energy(path: Path) -> SoundTrack:
    return SoundTrack.of_video(Media(path), read_timeline(Media(path)), 100)


def shown(path: Path, index: int) -> Any:
    return decode_pictures(Media(path), read_timeline(Media(path)), [range(index, index + 1)])


def document_of(folder: Path) -> Document:
    return from_json((folder / DOCUMENT).read_bytes())


def findings(folder: Path) -> list[str]:
    write_checksums(folder)
    return [f"{one.where}: {one.message}" for one in verify_release(folder)]


@pytest.fixture(scope="module")
def sound_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of an H.264 video, a VP8 one and one that plays a part twice."""
    storage = Storage(tmp_path_factory.mktemp("clips"))
    rows = drawn(storage, {DOG: h264, CAT: vp8, TRAIN: twice}, tables())
    release(storage, rows, unverified=True, media=True)
    return storage.path("releases/1.0")


@pytest.fixture
def folder(sound_release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound_release, tmp_path / "1.0"))


def test_every_clip_is_released_and_its_rows_say_how_it_was_made(folder: Path) -> None:
    document = document_of(folder)
    made = {image.video_id: image.clip_made for image in document.images}
    assert made == {DOG: "remuxed", CAT: "encoded", TRAIN: "encoded"}
    assert {image.clip_frames for image in document.images} == {50}
    assert verify_release(folder) == []
    statistics = json.loads((folder / "statistics.json").read_bytes())
    assert statistics["clips_made"] == {"encoded": 2, "remuxed": 1}
    assert (
        "| clips encoded anew, as their packets cannot be cut | 2 |"
        in (folder / "README.md").read_text()
    )


def test_the_frames_of_a_clip_are_compared_in_one_pass_over_it(folder: Path) -> None:
    rows = [row for row in document_of(folder).images if row.video_id == DOG]
    later = max(rows, key=lambda row: row.frame_index)
    others = [later.model_copy(update={"frame_id": name}) for name in ("a", "b", "c")]
    clip = Media(clip_of(folder, DOG))
    saved = {row.frame_id: (folder / row.file_name).read_bytes() for row in [*rows, *others]}
    settings = SampleConfig()
    found = differences_of_clip(clip, [*rows, *others], saved, settings, other_source=False)
    assert list(found) == []
    assert 0 < clip.counts.frames <= later.frame_index + 2


def clip_of(folder: Path, video_id: str) -> Path:
    return folder / f"video/{video_id}_00001.mp4"


def another_clip(folder: Path) -> None:
    clip_of(folder, DOG).write_bytes(clip_of(folder, CAT).read_bytes())


def again(folder: Path, *, skip: int = 0, late_s: float = 0.0, heard: bool = True) -> None:
    """Encode the clip anew, with one thing changed."""
    path = clip_of(folder, DOG)
    timeline = read_timeline(Media(path))
    pictures: list[Picture] = list(decode_pictures(Media(path), timeline, [range(50)]))
    sound = np.concatenate([np.zeros(round(late_s * 16_000), np.float32), SOUND[16_000:48_000]])
    encode_film(
        ((picture.time, picture.rgb()) for picture in pictures if picture.index != skip - 1),
        25,
        path,
        sound[:32_000] if heard else np.zeros(32_000, np.float32),
        16_000,
    )


def without_sound(folder: Path) -> None:
    path = clip_of(folder, DOG)
    other = path.with_suffix(".other.mp4")
    with av.open(str(path)) as source, av.open(str(other), "w", format="mp4") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    other.rename(path)


def pictures_late(folder: Path) -> None:
    """Every frame shows the one before it; count, times and sound are right."""
    path = clip_of(folder, DOG)
    timeline = read_timeline(Media(path))
    pictures = list(decode_pictures(Media(path), timeline, [range(50)]))
    shifted = zip(pictures, [pictures[0], *pictures], strict=False)
    encode_film(
        ((one.time, before.rgb()) for one, before in shifted),
        25,
        path,
        SOUND[16_000:48_000],
        16_000,
    )


def frames_off(folder: Path) -> None:
    """Every frame but the first comes 10 ms late; count, pictures and sound are right."""
    path = clip_of(folder, DOG)
    timeline = read_timeline(Media(path))
    encode_film(
        (
            (one.time + Fraction(one.index > 0, 100), one.rgb())
            for one in decode_pictures(Media(path), timeline, [range(50)])
        ),
        25,
        path,
        SOUND[16_000:48_000],
        16_000,
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (frames_off, " 0.010 s off"),
        (another_clip, "is not the picture that was saved"),
        (lambda folder: again(folder, late_s=0.2), "RMS"),
        (lambda folder: again(folder, late_s=0.05), "RMS"),
        (lambda folder: again(folder, heard=False), "has RMS 0.0000"),
        (without_sound, "has RMS 0.0000"),
        (lambda folder: again(folder, skip=20), "shows 49 frames in 2 s, not 50"),
        (lambda folder: again(folder, skip=50), "shows 49 frames in 2 s, not 50"),
        (pictures_late, "is less like the saved picture than the frame beside it"),
        (lambda folder: clip_of(folder, DOG).write_bytes(b"no clip"), "not_media"),
    ],
)
def test_a_clip_that_is_not_what_was_measured_is_found_though_the_checksums_agree(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    found = findings(folder)
    assert len(found) == 1
    assert found[0].startswith(f"video/{DOG}_00001.mp4: ")
    assert message in found[0]


def test_a_release_older_than_these_columns_verifies_and_says_what_was_not_compared(
    folder: Path,
) -> None:
    content = json.loads((folder / DOCUMENT).read_bytes())
    for image in content["images"]:
        for column in YOUNGER:
            del image[column]
    (folder / DOCUMENT).write_text(json.dumps(content))
    copy = folder / "annotations/frames.parquet"
    parquet.write_table(parquet.read_table(copy).drop_columns(list(YOUNGER)), copy)
    statistics = json.loads((folder / "statistics.json").read_bytes())
    del statistics["clips_made"]
    (folder / "statistics.json").write_text(json.dumps(statistics))
    card = (folder / "README.md").read_text().splitlines(keepends=True)
    (folder / "README.md").write_text("".join(one for one in card if "encoded anew" not in one))
    assert findings(folder) == []
    assert unmeasured(document_of(folder), folder) == 3


def test_a_video_whose_clip_is_not_as_measured_is_left_out_by_name(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    rows = drawn(storage, {DOG: h264, CAT: h264}, tables())
    other = [
        clip.model_copy(update={"rms_per_second": [0.9, 0.9]}) if clip.video_id == CAT else clip
        for clip in rows.clips
    ]
    summary = release(storage, replace(rows, clips=other), media=True)
    folder = storage.path("releases/1.0")
    assert {video.id for video in document_of(folder).videos} == {DOG}
    assert list((folder / "video").iterdir()) == [clip_of(folder, DOG)]
    assert f"media/videos/{CAT}.mp4: its clip second 0 has RMS" in summary.sentence()
    left_out = json.loads((folder / "statistics.json").read_bytes())["left_out"]
    named = {row["id"]: (row["reason"], row["detail"]) for row in left_out}
    assert named[CAT][0] == "not_as_measured"
    assert "0.9000 was measured" in named[CAT][1]
    assert {name for name in named if CAT in name} == {
        CAT,
        *(row.frame_id for row in rows.frames if row.video_id == CAT),
        *(row.instance_id for row in rows.instances if CAT in row.frame_id),
    }
    assert verify_release(folder) == []
    only = replace(
        rows,
        **{
            name: [row for row in getattr(rows, name) if CAT in row.id]
            for name in ("videos", "frames", "reviews", "instances", "masks")
        },
        clips=[row for row in other if row.video_id == CAT],
    )
    with pytest.raises(AvatarBuildError, match=r"Nothing to release.*0\.9000 was measured"):
        release(storage, only, "2.0", media=True)
    assert storage.folders("releases") == ["1.0"]


def test_another_picture_than_the_frame_that_was_saved_keeps_its_video_out(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    rows = drawn(storage, {DOG: h264, CAT: h264}, tables())
    first = next(frame for frame in rows.frames if frame.video_id == DOG)
    picture = cv2.imencode(".png", slow(9)(0))[1].tobytes()
    storage.write(first.path, picture)
    frames = [
        frame.model_copy(update={"sha256": ""}) if frame.frame_id == first.frame_id else frame
        for frame in rows.frames
    ]
    summary = release(storage, replace(rows, frames=frames), media=True)
    assert summary.videos == 1
    assert f"frame {first.frame_index} is not the picture that was saved" in summary.sentence()
