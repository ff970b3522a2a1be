"""The tagger through its real files: checkpoints, media, the whole stage, a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import HearConfig
from pipeline.errors import InputError, UsageError
from pipeline.media import Media, decode_pictures, read_timeline
from pipeline.models.register import add
from pipeline.records.schema import Clip, Frame, Sounds
from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from stages.backends.cav_mae.tagger import CavMaeTagger, mode_of
from stages.backends.hearing.span_tags import tag_spans
from stages.backends.interfaces import AudioQuery
from stages.taxonomy import audioset_classes
from tests.conftest import ROOT
from tests.pipeline.one_process import in_one_process
from tests.pipeline.shell import Shell
from tests.rows import clip, video
from tests.video_factory import bursts, make_video

torch = pytest.importorskip("torch")
from stages.backends.cav_mae.cav_mae_model import load_cav_mae  # noqa: E402
from stages.backends.cav_mae.picture_input import chosen_frames, prepare  # noqa: E402
from tests.stages.backends.cav_mae_weights import (  # noqa: E402
    layout,
    write_checkpoint,
    write_level_checkpoint,
)

WEIGHTS = "cav-mae-as-46.6"
HEAR = ["hear.tagger=cav-mae", "hear.device=cpu"]
LIST = """\
-1pRmoJIGQc,10,playing cello,test
compHarpBab,0,playing harp,test
"""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A whole checkpoint as the authors publish them, with weights by the rule."""
    path = tmp_path_factory.mktemp("cav_mae") / "as_46.6.pth"
    write_checkpoint(path)
    yield path
    path.unlink()


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of registered weights of this test's own, empty; one thread for torch."""
    monkeypatch.setenv("AVATAR_BUILD_MODELS", str(tmp_path / "models"))
    torch.set_num_threads(1)
    return tmp_path / "models"


@pytest.fixture(scope="module")
def sampled(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of two real videos, before anything is heard."""
    root = tmp_path_factory.mktemp("sampled") / "ws"
    Workspace.create(root, "offline")
    listed = root.parent / "list.csv"
    listed.write_text(LIST)
    template = f"{shared}/data/raw_videos/{{video_id}}.mp4"
    place = ["--workspace", str(root)]
    with pytest.MonkeyPatch.context() as patch:
        in_one_process(patch)
        shell = Shell(patch)
        shell("download", *place, "--list", listed, "--source-template", template).check()
        shell("sample", *place, "--set", "sample.max_frames=2").check()
    return root


@pytest.fixture(scope="module")
def whole(sampled: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same after an undisturbed run."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVATAR_BUILD_MODELS", str(root / "models"))
        in_one_process(patch)
        add(WEIGHTS, checkpoint)
        return hear(copy_of(sampled, root / "ws"))


def copy_of(root: Path, target: Path) -> Path:
    """Hard links: quick, and nothing in a workspace is written in place."""
    subprocess.run(["cp", "-al", str(root), str(target)], check=True)
    return target


def hear(root: Path, *settings: str) -> Workspace:
    workspace = Workspace(root, [*HEAR, *settings])
    summary = run_stage(workspace, "hear", RunOptions(workers=1))
    assert summary.pending == 0
    assert not summary.bugs
    return workspace


def opened(folder: Path, **settings: str) -> CavMaeTagger:
    values = {"tagger": "cav-mae", "device": "cpu", **settings}
    tagger = CavMaeTagger(HearConfig.model_validate(values))
    tagger.open(Storage(folder))
    return tagger


def query(path: Path, *spans: tuple[float, float]) -> AudioQuery:
    return AudioQuery(clip(), video(path=path.name), spans or [(0.0, 4.0)])


# The whole stage


def test_each_clip_of_real_videos_gets_its_twenty_loudest_classes(whole: Workspace) -> None:
    rows = whole.rows(Sounds)
    assert [row.clip_id for row in rows] == [row.clip_id for row in whole.rows(Clip)]
    assert len(rows) == 2
    for row in rows:
        assert row.tagger == WEIGHTS
        assert row.frame_id is None
        scores = [heard.score for heard in row.classes]
        assert len(scores) == 20
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert {heard.name for heard in row.classes} <= set(audioset_classes())
    assert len({row.classes[0].score for row in rows}) == 2, "each clip sounds different"


def test_killed_while_it_hears_and_resumed_it_ends_as_if_it_had_not_been(
    sampled: Path, whole: Workspace, checkpoint: Path, tmp_path: Path, one_process: None
) -> None:
    add(WEIGHTS, checkpoint)
    root = copy_of(sampled, tmp_path / "killed")
    code = (
        "from tests.stages.backends.test_cav_mae import hear; from pathlib import Path; import sys"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", f"{code}; hear(Path(sys.argv[1]))", str(root)],
        cwd=ROOT,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list((root / "media" / "cache").rglob("*.json")):
        assert started.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert Workspace(root).rows(Sounds) == []
    assert hear(root).digest("sounds") == whole.digest("sounds")


def test_with_scope_frame_each_frame_has_sounds_of_its_own(
    sampled: Path, checkpoint: Path, tmp_path: Path, one_process: None
) -> None:
    add(WEIGHTS, checkpoint)
    workspace = hear(copy_of(sampled, tmp_path / "ws"), "hear.scope=frame")
    frames = {row.frame_id: row for row in workspace.rows(Frame)}
    rows = workspace.rows(Sounds)
    assert [row.id for row in rows] == sorted(frames)
    assert all(frames[row.id].clip_id == row.clip_id for row in rows)
    one = [row.classes for row in rows if row.clip_id == rows[0].clip_id]
    assert len({classes[0].score for classes in one}) == len(one) > 1


def test_without_weights_the_run_stops_before_it_begins_and_names_both_ways_out(
    tmp_path: Path,
) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    workspace = Workspace(tmp_path / "ws", HEAR)
    with pytest.raises(UsageError) as raised:
        run_stage(workspace, "hear", RunOptions(workers=1))
    said = str(raised.value)
    assert "\n" not in said
    assert f"models fetch {WEIGHTS}" in said
    assert "offline" in said


def test_a_foreign_checkpoint_stops_the_run_with_its_first_wrong_tensor(
    sampled: Path, tmp_path: Path
) -> None:
    torch.save({"module.modality_a": torch.zeros(1, 1, 512)}, tmp_path / "foreign.pth")
    add(WEIGHTS, tmp_path / "foreign.pth", own=True)
    with pytest.raises(UsageError, match=r"foreign\.pth: tensor modality_a is \(1, 1, 512\)"):
        hear(copy_of(sampled, tmp_path / "ws"))


# Clips that cannot be heard


def test_a_clip_without_sound_or_file_is_answered_so_and_holds_up_no_other(
    checkpoint: Path, tmp_path: Path
) -> None:
    add(WEIGHTS, checkpoint)
    whole = make_video(tmp_path / "whole.mp4", frames=100, sound=bursts(4, [1, 3]))
    silent = make_video(tmp_path / "silent.mp4", frames=100)
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(b"no video")
    asked = [query(path) for path in (silent, whole, torn, tmp_path / "gone.mp4")]
    answers = list(opened(tmp_path).tag(asked))
    kinds = [one.kind if isinstance(one, InputError) else len(one[0]) for one in answers]
    assert kinds == ["no_audio", 20, "not_media", "missing_file"]


def test_a_model_that_computes_no_number_fails_the_clip(tmp_path: Path) -> None:
    add(WEIGHTS, write_level_checkpoint(tmp_path / "nan.pth", float("nan")), own=True)
    path = make_video(tmp_path / "v.mp4", frames=100, sound=bursts(4, [1, 3]))
    (answer,) = opened(tmp_path).tag([query(path)])
    assert isinstance(answer, InputError)
    assert answer.kind == "not_a_number"


def test_batches_give_what_clips_alone_give(checkpoint: Path, tmp_path: Path) -> None:
    add(WEIGHTS, checkpoint)
    tagger = opened(tmp_path)
    paths = [
        make_video(tmp_path / f"{n}.mp4", frames=100, sound=bursts(4, [n / 2, n / 2 + 1]))
        for n in range(1, 3)
    ]
    # The first has two windows: what belongs to whom must survive the batch.
    asked = [query(paths[0], (0, 2), (1, 3.5)), query(paths[1])]
    alone = list(tagger.tag(asked))
    together = list(tag_spans("x", asked, tagger._prepare, tagger._score, 1e9))
    assert [len(one) for one in together if not isinstance(one, InputError)] == [2, 1]
    for one, same in zip(alone, together, strict=True):
        assert not isinstance(one, InputError)
        assert not isinstance(same, InputError)
        for mine, theirs in zip(one, same, strict=True):
            scores = {heard.name: heard.score for heard in theirs}
            assert [scores[heard.name] for heard in mine[:10]] == pytest.approx(
                [heard.score for heard in mine[:10]], abs=3e-6
            )


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "bfloat16"),
        pytest.param(
            "cuda:0",
            "auto",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
        ),
    ],
)
def test_half_the_bits_move_no_score_by_a_hundredth(
    checkpoint: Path, tmp_path: Path, device: str, precision: str
) -> None:
    add(WEIGHTS, checkpoint)
    audio = np.random.default_rng(0).standard_normal((2, 1024, 128)).astype(np.float32)
    exact = opened(tmp_path).scores(audio, None)
    coarse = opened(tmp_path, device=device, precision=precision).scores(audio, None)
    assert 0 < np.abs(coarse - exact).max() < 0.01


# Pictures


def test_the_ten_pictures_are_the_ones_before_each_tenth_of_the_first_ten_seconds() -> None:
    assert chosen_frames(300, 30.0) == [0, 29, 59, 89, 119, 149, 179, 209, 239, 269]
    assert chosen_frames(301, 29.97) == chosen_frames(299, 40.0)
    assert chosen_frames(5, 25.0) == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_pictures_are_prepared_from_the_frames_of_the_span(tmp_path: Path) -> None:
    add("cav-mae-as-20.0", write_level_checkpoint(tmp_path / "v.pth", 0.01), own=True)
    path = make_video(tmp_path / "v.mp4", frames=100)
    tagger = opened(tmp_path, weights="cav-mae-as-20.0")
    found = tagger._prepare(query(path, (1.0, 3.0)))
    assert found.audio is None
    assert found.images is not None
    assert found.images.shape == (10, 3, 224, 224)
    media = Media(path)
    timeline = read_timeline(media)
    wanted = [25 + index for index in chosen_frames(50, 25.0)]
    shown = {p.index: p for p in decode_pictures(media, timeline, [range(25, 75)])}
    for image, index in zip(found.images, wanted, strict=True):
        np.testing.assert_array_equal(image, prepare(shown[index].rgb()))


def test_sound_given_once_for_many_pictures_is_sound_given_with_each(checkpoint: Path) -> None:
    model = load_cav_mae(checkpoint)
    dice = torch.Generator().manual_seed(0)
    audio = torch.randn(1, 1024, 128, generator=dice)
    images = torch.randn(2, 3, 224, 224, generator=dice)
    with torch.inference_mode():
        once = model(audio, images, "multimodal")
        each = [model(audio, image[None], "multimodal")[0] for image in images]
    np.testing.assert_allclose(once, torch.stack(each), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_seeing_and_hearing_is_the_mean_of_the_probabilities_over_ten_pictures(
    checkpoint: Path, tmp_path: Path
) -> None:
    add("cav-mae-as-full-51.2", checkpoint, own=True)
    path = make_video(tmp_path / "v.mp4", frames=100, sound=bursts(4, [1, 3]))
    tagger = opened(tmp_path, weights="cav-mae-as-full-51.2")
    asked = query(path)
    (heard,) = tagger.tag([asked])
    assert not isinstance(heard, InputError)
    given = tagger._prepare(asked)
    assert given.images is not None
    each = [tagger.scores(given.audio, image[None])[0] for image in given.images]
    assert len(each) == 10
    mean = np.mean(np.array(each, np.float64), axis=0)
    found = [mean[audioset_classes().index(row.name)] for row in heard[0]]
    assert [row.score for row in heard[0]] == pytest.approx(found, abs=3e-6)
    assert found == pytest.approx(sorted(mean)[::-1][:20], abs=3e-6)


# Checkpoints and settings


def test_a_wrong_checkpoint_is_refused_by_its_first_wrong_tensor(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    one = torch.zeros(1)
    good = {name: one.expand(shape) for name, shape in layout().items()}
    missing = {name: value for name, value in good.items() if "blocks_v.3.attn" not in name}
    narrow = good | {"module.blocks_u.0.mlp.fc1.bias": one.expand(3071)}
    more = good | {"module.blocks_a.11.norm1.weight": one.expand(768)}
    pretraining = {
        name: value for name, value in good.items() if not name.startswith("module.mlp_head")
    } | {"module.decoder_pos_embed_a": one}
    for tensors, said in (
        (missing, r"tensor blocks_v\.3\.attn\.qkv\.weight is missing"),
        (narrow, r"tensor blocks_u\.0\.mlp\.fc1\.bias is \(3071,\), this model's is \(3072,\)"),
        (more, r"tensor blocks_a\.11\.norm1\.weight is none"),
        (pretraining, "pretraining"),
        ({"module.mlp_head.1.weight": torch.tensor(1.0)}, "modality_a is missing"),
    ):
        torch.save(tensors, path)
        with pytest.raises(UsageError, match=said):
            load_cav_mae(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(UsageError, match="not a readable checkpoint"):
        load_cav_mae(path)


def test_vggsounds_classes_are_no_audioset_classes(tmp_path: Path) -> None:
    add(WEIGHTS, write_level_checkpoint(tmp_path / "vgg.pth", 0.1, num_classes=309), own=True)
    with pytest.raises(UsageError, match=r"vgg\.pth: knows 309 classes, AudioSet has 527"):
        opened(tmp_path)


def test_a_checkpoint_is_run_as_it_was_tuned_and_as_nothing_else() -> None:
    assert mode_of(HearConfig()) == "audioonly"
    both = HearConfig(weights="cav-mae-as-full-51.2")
    assert mode_of(both) == "multimodal"
    assert mode_of(both.model_copy(update={"scope": "frame"})) == "missingaudioonly"
    assert mode_of(both.model_copy(update={"mode": "missingvideoonly"})) == "missingvideoonly"
    assert mode_of(HearConfig(weights="cav-mae-as-20.0")) == "videoonly"
    for wrong in (
        HearConfig(mode="missingaudioonly"),
        HearConfig(weights="cav-mae-as-full-51.2", mode="audioonly"),
        HearConfig(weights="cav-mae-as-20.0", scope="frame"),
    ):
        with pytest.raises(UsageError, match=r"hear\.mode"):
            mode_of(wrong)
