"""The small tagger: its front end by a slow definition, files through the loader, real media."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import HearConfig
from pipeline.errors import InputError, UsageError
from pipeline.models.register import add
from pipeline.records.schema import Frame, SoundClass, Sounds
from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from stages.backends.efficientat.efficientat_tagger import EfficientAtTagger
from stages.backends.efficientat.mel_spectrogram import MIN_SAMPLES, mel_spectrogram
from stages.backends.hearing.span_tags import SpanTags, loudest, tag_spans
from stages.backends.interfaces import AudioQuery
from stages.taxonomy import audioset_classes
from tests.flow_world import Flow
from tests.pipeline.shell import Shell
from tests.rows import clip, video
from tests.video_factory import bursts, make_video

torch = pytest.importorskip("torch")
from stages.backends.efficientat.efficientat_model import (  # noqa: E402
    WIDTHS,
    EfficientAt,
    fast,
    load_efficientat,
)
from tests.stages.backends.efficientat_weights import (  # noqa: E402
    random_tensors,
    real_weights,
    write_random,
)

NAME = "efficientat-mn01-as"


def opened(folder: Path, name: str = NAME, **settings: object) -> EfficientAtTagger:
    torch.set_num_threads(1)
    values = {"tagger": name, "device": "cpu", **settings}
    tagger = EfficientAtTagger(HearConfig.model_validate(values))
    tagger.open(Storage(folder))
    return tagger


def query(path: Path, *spans: tuple[float, float]) -> AudioQuery:
    return AudioQuery(clip(), video(path=path.name), spans or [(0.0, 4.0)])


def sounding(folder: Path, count: int = 3) -> list[Path]:
    return [
        make_video(folder / f"{n}.mp4", frames=100, sound=bursts(4, [n / 2, n / 2 + 1]))
        for n in range(1, count + 1)
    ]


def same(some: Sequence[SpanTags], others: Sequence[SpanTags], atol: float) -> None:
    for one, other in zip(some, others, strict=True):
        assert not isinstance(one, InputError)
        assert not isinstance(other, InputError)
        for mine, theirs in zip(one, other, strict=True):
            scores = {heard.name: heard.score for heard in theirs}
            best = [(heard.name, heard.score) for heard in mine[:10]]
            assert [scores[name] for name, _ in best] == pytest.approx(
                [score for _, score in best], abs=atol
            )


# The mel spectrogram


def slow_mel(wave: NDArray[np.float32], frame: int) -> list[float]:
    """One frame by the definitions, a sum at a time, in double precision."""
    emphasised = [float(wave[n + 1]) - 0.97 * float(wave[n]) for n in range(len(wave) - 1)]
    last = len(emphasised) - 1
    windowed = []
    for n in range(1024):
        place = abs(frame * 320 + n - 512)
        place = 2 * last - place if place > last else place
        inside = 112 <= n < 912
        hann = 0.5 - 0.5 * math.cos(2 * math.pi * (n - 112) / 799) if inside else 0.0
        windowed.append(emphasised[place] * hann)
    turn = np.exp(-2j * np.pi * np.arange(1024) / 1024)
    power = [abs(sum(windowed * turn ** (k % 1024))) ** 2 for k in range(512)]
    top = 1127 * math.log(1 + 15000 / 700)
    found = []
    for f in range(128):
        low, centre, high = (top * (f + step) / 129 for step in range(3))
        energy = 0.0
        for k, value in enumerate(power):
            mel = 1127 * math.log(1 + k * 31.25 / 700)
            if low < mel < high:
                rising = (mel - low) / (centre - low)
                energy += value * (rising if mel <= centre else (high - mel) / (high - centre))
        found.append((math.log(energy + 1e-5) + 4.5) / 5)
    return found


@pytest.mark.parametrize("samples", [MIN_SAMPLES, 3201, 6400])
def test_the_spectrogram_is_its_definition(samples: int) -> None:
    wave = (0.3 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)
    mel = mel_spectrogram(wave)
    assert mel.shape == (128, 1 + (samples - 1) // 320)
    for frame in {0, mel.shape[1] // 2, mel.shape[1] - 1}:
        np.testing.assert_allclose(mel[:, frame], slow_mel(wave, frame), rtol=0, atol=2e-4)


def test_a_tone_is_loudest_in_the_bin_of_its_pitch() -> None:
    time = np.arange(32000) / 32000
    for hz in (250.0, 1000.0, 8000.0):
        mel = mel_spectrogram((0.5 * np.sin(2 * np.pi * hz * time)).astype(np.float32))
        bin_of = 129 * math.log1p(hz / 700) / math.log1p(15000 / 700) - 1
        assert abs(int(mel.mean(axis=1).argmax()) - bin_of) <= 1


# The network and its files


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("efficientat-mn04-as", 0.983),
        ("efficientat-mn05-as", 1.43),
        ("efficientat-mn10-as", 4.88),
        ("efficientat-mn20-as", 17.91),
        ("efficientat-mn30-as", 39.09),
        ("efficientat-mn40-as", 68.43),
    ],
)
def test_each_width_has_the_parameters_its_authors_count(name: str, millions: float) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in EfficientAt(WIDTHS[name]).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.002)


def test_folding_and_another_layout_change_no_logit(tmp_path: Path) -> None:
    path = write_random(tmp_path / "x.pt", NAME)
    mel = torch.randn(2, 128, 61, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = load_efficientat(path, NAME)(mel)
        quick = fast(load_efficientat(path, NAME))(mel)
    assert plain.std() > 0.1
    np.testing.assert_allclose(quick, plain, rtol=0, atol=5e-5 * plain.abs().max())


def test_a_file_in_half_precision_is_the_same_network(tmp_path: Path) -> None:
    halved = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in random_tensors(NAME).items()
    }
    torch.save(halved, tmp_path / "half.pt")
    loaded = load_efficientat(tmp_path / "half.pt", NAME).state_dict()
    assert all(
        torch.equal(loaded[name], tensor.to(loaded[name])) for name, tensor in halved.items()
    )


def test_a_wrong_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    good = random_tensors(NAME)
    missing = {name: value for name, value in good.items() if "conc_se" not in name}
    classes = good | {"classifier.5.bias": torch.zeros(1000)}
    colours = good | {"features.0.0.weight": torch.zeros(8, 3, 3, 3)}
    more = good | {"decoder.weight": torch.zeros(1)}
    for tensors, said in (
        (random_tensors("efficientat-mn02-as"), "holds efficientat-mn02-as, not efficientat-mn01"),
        (missing, r"tensor features\.4\.block\.1\.conc_se_layers\.0\.fc1\.weight is missing"),
        (classes, r"tensor classifier\.5\.bias is \(1000,\), this model's is \(527,\)"),
        (colours, r"tensor features\.0\.0\.weight is \(8, 3, 3, 3\), this model's is \(8, 1, 3,"),
        (more, r"tensor decoder\.weight is none of this model's"),
        ({"module.modality_a": torch.zeros(1, 1, 768)}, r"features\.0\.0\.weight is missing"),
        ({"model": good}, "'model' is a dict, not a tensor"),
    ):
        torch.save(tensors, path)
        with pytest.raises(UsageError, match=said) as raised:
            load_efficientat(path, NAME)
        assert "\n" not in str(raised.value)
        assert str(path) in str(raised.value)


def test_a_truncated_file_is_refused_before_it_is_registered(tmp_path: Path, shell: Shell) -> None:
    path = write_random(tmp_path / "mn01.pt", NAME)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "not a readable checkpoint" in shell("models", "add", NAME, path).one_line()
    other = write_random(tmp_path / "mn02.pt", "efficientat-mn02-as")
    assert "holds efficientat-mn02-as" in shell("models", "add", NAME, other).one_line()


# Tagging


def test_batches_give_what_clips_alone_give_at_spans_of_any_length(tmp_path: Path) -> None:
    add(NAME, write_random(tmp_path / "x.pt", NAME))
    tagger = opened(tmp_path)
    paths = sounding(tmp_path)
    # What belongs to whom must survive the sorting by length.
    asked = [query(paths[0]), query(paths[1], (0, 2), (1, 1.05), (1, 3)), query(paths[2])]
    alone = list(tagger.tag(asked))
    together = list(tag_spans(NAME, asked, tagger._prepare, tagger._score, 1e9))
    assert [len(one) for one in together if not isinstance(one, InputError)] == [1, 3, 1]
    same(alone, together, 3e-6)


def test_a_clip_without_sound_or_file_is_answered_so_and_holds_up_no_other(tmp_path: Path) -> None:
    add(NAME, write_random(tmp_path / "x.pt", NAME))
    (whole,) = sounding(tmp_path, 1)
    silent = make_video(tmp_path / "silent.mp4", frames=100)
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    paths = [silent, whole, tmp_path / "torn.mp4", tmp_path / "gone.mp4"]
    short = query(whole, (0.0, 0.01))
    answers = list(opened(tmp_path).tag([*(query(path) for path in paths), short]))
    kinds = [one.kind if isinstance(one, InputError) else len(one[0]) for one in answers]
    assert kinds == ["no_audio", 20, "not_media", "missing_file", "no_audio"]


def test_a_network_that_computes_no_number_fails_the_clip(tmp_path: Path) -> None:
    broken = random_tensors(NAME) | {"classifier.5.bias": torch.full((527,), math.nan)}
    torch.save(broken, tmp_path / "nan.pt")
    add(NAME, tmp_path / "nan.pt")
    (path,) = sounding(tmp_path, 1)
    (answer,) = opened(tmp_path).tag([query(path)])
    assert isinstance(answer, InputError)
    assert answer.kind == "not_a_number"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_in_half_the_bits_the_scores_are_the_cpus(tmp_path: Path) -> None:
    add(NAME, write_random(tmp_path / "x.pt", NAME))
    asked = [query(path, (0, 4), (0, 2), (1, 3)) for path in sounding(tmp_path)]
    exact = list(opened(tmp_path).tag(asked))
    same(exact, list(opened(tmp_path, device="cuda:0", precision="float32").tag(asked)), 1e-3)
    same(exact, list(opened(tmp_path, device="cuda:0").tag(asked)), 0.03)


def test_the_stage_hears_a_window_around_each_frame(
    flow: Flow, tmp_path: Path, one_process: None
) -> None:
    add(NAME, write_random(tmp_path / "x.pt", NAME))
    root = tmp_path / "ws"
    subprocess.run(["cp", "-al", flow.workspace.storage.path(""), root], check=True)
    workspace = Workspace(root, [f"hear.tagger={NAME}", "hear.scope=frame", "hear.device=cpu"])
    summary = run_stage(workspace, "hear", RunOptions(workers=1, redo=True))
    assert not summary.bugs
    rows = workspace.rows(Sounds)
    assert [row.frame_id for row in rows] == sorted(f.frame_id for f in workspace.rows(Frame))
    assert {row.tagger for row in rows} == {NAME}
    assert all(len(row.classes) == 20 for row in rows)


# Real weights on real sounds

HEARD = {
    "3qesirWAGt4": ("Dog", 0.92),
    "0nib7bMm8BA": ("Bird", 0.66),
    "6zlMP_kQ_-w": ("Harp", 0.65),
    "3HgbEKrbA9s": ("Double bass", 0.57),
    "-Qowmc0P9ic": ("Drum kit", 0.57),
    "3JYjNHFJfO4": ("Laughter", 0.69),
    "KlsG1EnBEjc": ("Electric shaver, electric razor", 0.44),
    "-1pRmoJIGQc": ("Vehicle", 0.39),
    "00W1lcxW-WU": ("Flute", 0.52),
    "compHarpBab": ("Baby cry, infant cry", 0.55),
    "compDogDrum": ("Dog", 0.84),
    "vasDog02677": ("Dog", 0.93),
    "silentWater": ("Silence", 0.54),
}
"""A class of the first ten seconds and its score, by the authors' code and another resampler."""


def test_the_real_network_hears_in_real_videos_what_the_authors_hears(
    shared: Path, tmp_path: Path
) -> None:
    name = "efficientat-mn04-as"
    add(name, real_weights("mn04_as"))
    videos = shared / "data" / "raw_videos"
    asked = []
    for video_id in HEARD:
        link = tmp_path / f"{video_id}.mp4"
        link.symlink_to(videos / link.name)
        asked.append(query(link, (0.0, 10.0)))
    answers = opened(tmp_path, name).tag(asked)
    for (video_id, (wanted, score)), answer in zip(HEARD.items(), answers, strict=True):
        assert not isinstance(answer, InputError), video_id
        found = {heard.name: heard.score for heard in answer[0]}
        assert found[wanted] == pytest.approx(score, abs=0.06), (video_id, answer[0][:3])


def test_of_each_span_the_real_network_hears_what_sounds_then(shared: Path, tmp_path: Path) -> None:
    name = "efficientat-mn04-as"
    add(name, real_weights("mn04_as"))
    link = tmp_path / "compHarpBab.mp4"  # 5 s of a harp, then 5 s of crying
    link.symlink_to(shared / "data" / "raw_videos" / link.name)
    (answer,) = opened(tmp_path, name).tag([query(link, (0.0, 5.0), (5.5, 9.5))])
    assert not isinstance(answer, InputError)
    harp, baby = ({heard.name: heard.score for heard in span} for span in answer)
    assert harp["Harp"] > 0.3 > harp.get("Baby cry, infant cry", 0.0)
    assert baby["Baby cry, infant cry"] > 0.3 > baby.get("Harp", 0.0)


def test_the_loudest_come_first_and_equals_in_audiosets_order() -> None:
    scores = np.full(527, 0.25, np.float32)
    scores[[7, 500]] = 0.5, 0.75
    names = [audioset_classes()[k] for k in (500, 7, *range(18))]
    names = list(dict.fromkeys([*names, audioset_classes()[18]]))
    assert loudest(scores)[:2] == [
        SoundClass(name=names[0], score=0.75),
        SoundClass(name=names[1], score=0.5),
    ]
    assert [heard.name for heard in loudest(scores)] == names
