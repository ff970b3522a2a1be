"""The network does what its equations say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from tavlo.network.model import (
    AstBlock,
    AttentionLayer,
    Tavlo,
    TavloSizes,
    VisualEncoder,
    similarity,
    sinusoidal_positions,
)

SMALL = TavloSizes(
    num_bins=16,
    steps_per_frame=2,
    position_size=16,
    num_blocks=2,
    num_heads=4,
    max_frames=6,
    grid=2,
)


@pytest.fixture(scope="module")
def net() -> Tavlo:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Tavlo(SMALL).eval()


def clips(batch: int, num_frames: int, seed: int = 1) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, num_frames, 64, 64, 3)
    return {
        "frames": torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng),
        "spectrogram": torch.randn(batch, 2 * num_frames, 16, generator=rng),
        "frame_mask": torch.ones(batch, num_frames, dtype=torch.bool),
    }


def tokens(net: Tavlo, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    outputs = net(batch)
    return outputs["audio_tokens"], outputs["visual_tokens"]


def features(num_frames: int, size: int = 512) -> tuple[Tensor, Tensor]:
    """What the encoders might give for one clip."""
    return torch.randn(1, num_frames, size), torch.randn(1, num_frames, 2, 2, size)


def test_the_default_sizes_are_the_papers() -> None:
    sizes = TavloSizes()
    assert (sizes.feature_size, sizes.grid, sizes.max_frames) == (512, 7, 300)
    assert sizes.order == "spatial-temporal"
    with pytest.raises(ValueError, match="num_heads 7 does not divide"):
        TavloSizes(num_heads=7)


@torch.no_grad()
def test_shapes_are_those_of_the_equations(net: Tavlo) -> None:
    assert net.audio_encoder(torch.randn(2, 16, 10)).shape == (2, 5, 512)
    assert net.visual_encoder(torch.randn(10, 3, 64, 64)).shape == (10, 512, 2, 2)
    audio, visual = tokens(net, clips(2, 5))
    assert audio.shape == (2, 5, 528)
    assert visual.shape == (2, 5, 2, 2, 528)
    heat = similarity(audio, visual)
    assert heat.shape == (2, 5, 2, 2)
    assert heat.abs().max() <= 1 + 1e-6


def slow_attention(layer: AttentionLayer, tokens: Tensor) -> Tensor:
    """Eq. 9 and 10 for one sequence ``(length, d)``, head by head, in float64."""
    size = tokens.shape[-1]
    head = size // layer.num_heads
    normed = layer.norm_attention(tokens)
    qkv = layer.to_qkv(normed)
    out = []
    for number in range(layer.num_heads):
        columns = slice(number * head, (number + 1) * head)
        query, key, value = (
            qkv[:, part * size : (part + 1) * size][:, columns] for part in range(3)
        )
        weights = (query @ key.T / math.sqrt(head)).softmax(-1)
        out.append(weights @ value)
    tokens = tokens + layer.to_out(torch.cat(out, -1))
    refined: Tensor = tokens + layer.ffn(layer.norm_ffn(tokens))
    return refined


@torch.no_grad()
@pytest.mark.parametrize("order", ["spatial-temporal", "temporal-spatial"])
def test_the_blocks_equal_a_slow_second_definition(order: str) -> None:
    torch.manual_seed(2)
    sizes = TavloSizes(**{**vars(SMALL), "order": order})
    net = Tavlo(sizes).double().eval()
    audio = torch.randn(1, 3, 512, dtype=torch.float64)
    visual = torch.randn(1, 3, 2, 2, 512, dtype=torch.float64)
    tokens = torch.zeros(3, 5, 528, dtype=torch.float64)
    assert net.space_position is not None
    for t in range(3):
        tokens[t, 0] = torch.cat([audio[0, t], net.time_position[t]])  # eq. 5
        for cell in range(4):
            row, column = divmod(cell, 2)
            placed = visual[0, t, row, column] + net.space_position[row, column]
            tokens[t, 1 + cell] = torch.cat([placed, net.time_position[t]])  # eq. 4
    for block in net.blocks:
        assert isinstance(block, AstBlock)
        steps = ["space", "time"] if order == "spatial-temporal" else ["time", "space"]
        for step in steps:
            if step == "space":
                tokens = torch.stack([slow_attention(block.spatial, tokens[t]) for t in range(3)])
            else:
                columns = [slow_attention(block.temporal, tokens[:, n]) for n in range(5)]
                tokens = torch.stack(columns, 1)
    fast_audio, fast_visual = net.attend(audio, visual)
    torch.testing.assert_close(fast_audio[0], tokens[:, 0])
    torch.testing.assert_close(fast_visual[0].flatten(1, 2), tokens[:, 1:])


@torch.no_grad()
def test_each_sound_embedding_hears_its_own_frame_only(net: Tavlo) -> None:
    spectrogram = torch.randn(1, 16, 10)
    encoded = net.audio_encoder(spectrogram)
    changed = spectrogram.clone()
    changed[:, :, 4:6] += 1.0  # the two steps of frame 2
    moved = (net.audio_encoder(changed) - encoded).abs().amax(-1)[0] > 0
    assert moved.tolist() == [False, False, True, False, False]


@torch.no_grad()
def test_the_order_of_frames_matters(net: Tavlo) -> None:
    audio, visual = features(5)
    turned = torch.tensor([4, 2, 0, 3, 1])
    straight = net.attend(audio, visual)[0]
    permuted = net.attend(audio[:, turned], visual[:, turned])[0]
    assert (straight[:, turned] - permuted).abs().max() > 1e-4


@torch.no_grad()
def test_a_batch_of_one_equals_a_batch_of_many(net: Tavlo) -> None:
    batch = clips(3, 4)
    together = tokens(net, batch)
    for number in range(3):
        alone = tokens(net, {name: value[number : number + 1] for name, value in batch.items()})
        for part, whole in zip(alone, together, strict=True):
            torch.testing.assert_close(part[0], whole[number], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_frames_that_do_not_exist_change_nothing(net: Tavlo) -> None:
    batch, more = clips(1, 4), clips(1, 2, seed=2)
    padded = {name: torch.cat([batch[name], more[name]], 1) for name in batch}
    padded["frame_mask"][:, 4:] = False
    for whole, longer in zip(tokens(net, batch), tokens(net, padded), strict=True):
        torch.testing.assert_close(longer[:, :4], whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("order", ["spatial-temporal", "temporal-spatial"])
@pytest.mark.parametrize("attention", ["joint", "within-modality", "none"])
def test_audio_and_visual_tokens_know_of_each_other_only_if_joint(
    order: str, attention: str
) -> None:
    torch.manual_seed(4)
    net = Tavlo(TavloSizes(**{**vars(SMALL), "order": order, "spatial_attention": attention}))
    net.eval()
    audio, visual = features(5)
    audio_tokens, visual_tokens = net.attend(audio, visual)
    other_audio, _ = net.attend(audio, visual + torch.randn_like(visual))
    _, other_visual = net.attend(audio + torch.randn_like(audio), visual)
    assert torch.equal(audio_tokens, other_audio) is (attention != "joint")
    assert torch.equal(visual_tokens, other_visual) is (attention != "joint")


@torch.no_grad()
@pytest.mark.parametrize("attention", ["within-modality", "none"])
def test_without_spatial_attention_a_cell_knows_nothing_of_others(attention: str) -> None:
    torch.manual_seed(5)
    net = Tavlo(TavloSizes(**{**vars(SMALL), "spatial_attention": attention})).eval()
    audio, visual = features(5)
    other = visual.clone()
    other[:, :, 0, 0] += torch.randn_like(other[:, :, 0, 0])
    _, visual_tokens = net.attend(audio, visual)
    _, other_visual = net.attend(audio, other)
    assert not torch.equal(visual_tokens[:, :, 0, 0], other_visual[:, :, 0, 0])
    assert torch.equal(visual_tokens[:, :, 0, 1:], other_visual[:, :, 0, 1:]) is (
        attention == "none"
    )


@torch.no_grad()
@torch.no_grad()
def test_without_temporal_attention_a_frame_knows_nothing_of_others() -> None:
    torch.manual_seed(3)
    alone, full = (Tavlo(replace(SMALL, temporal_attention=how)).eval() for how in ("none", "full"))
    full.load_state_dict(alone.state_dict())  # the same weights, and so the same number of them
    for net, knows in ((alone, False), (full, True)):
        audio, visual = features(5)
        before = net.attend(audio, visual)
        audio[:, 3], visual[:, 3] = torch.randn(512), torch.randn(2, 2, 512)
        after = net.attend(audio, visual)
        for one, other in zip(before, after, strict=True):
            same = [torch.equal(one[:, t], other[:, t]) for t in range(5)]
            assert same == ([False] * 5 if knows else [True, True, True, False, True])
    # A frame is what a clip of this frame alone is, but for its position.
    audio, visual = features(1)
    assert torch.equal(alone.attend(audio, visual)[0], full.attend(audio, visual)[0])


@torch.no_grad()
def test_without_pos_s_places_are_told_by_their_features_alone() -> None:
    torch.manual_seed(3)
    without = Tavlo(replace(SMALL, space_positions=False)).eval()
    torch.manual_seed(3)
    papers = Tavlo(SMALL).eval()
    assert papers.state_dict().keys() - without.state_dict().keys() == {"space_position"}
    audio, visual = features(3)
    turned = visual.flip(2, 3)
    for net, blind in ((without, True), (papers, False)):
        net.load_state_dict(without.state_dict(), strict=False)
        there, back = (net.attend(audio, given)[1] for given in (visual, turned))
        assert torch.allclose(there, back.flip(2, 3), atol=1e-5) == blind


@torch.no_grad()
def test_frame_t_has_one_position_whatever_the_clips_frame_rate() -> None:
    # Blocks that change nothing yet show what they are given.
    net = Tavlo(replace(SMALL, residual_init="zero")).eval()
    sound, picture = features(1)
    slow, fast = (
        net.attend(sound.expand(1, t, -1), picture.expand(1, t, -1, -1, -1)) for t in (4, 6)
    )
    for one, other in zip(slow, fast, strict=True):
        assert torch.equal(one, other[:, :4])


def test_blocks_whose_residuals_begin_at_zero_change_nothing_yet() -> None:
    net = Tavlo(TavloSizes(**{**vars(SMALL), "residual_init": "zero"})).eval()
    audio, visual = features(5)
    audio_tokens, visual_tokens = net.attend(audio, visual)
    assert torch.equal(audio_tokens[..., :512], audio)
    assert net.space_position is not None
    assert torch.equal(visual_tokens[..., :512], visual + net.space_position)


def test_cosines_are_never_of_half_precision() -> None:
    audio, visual = torch.randn(1, 2, 8), torch.randn(1, 2, 3, 3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = similarity(audio, visual)
    assert torch.equal(inside, similarity(audio, visual))
    assert similarity(audio.bfloat16(), visual.bfloat16()).dtype == torch.float32
    assert similarity(audio.double(), visual.double()).dtype == torch.float64


def test_recomputing_gives_the_same_gradients() -> None:
    batch = clips(1, 3)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(3)
        net = Tavlo(SMALL, recompute=recompute).train()
        audio, visual = tokens(net, batch)
        torch.autograd.backward(similarity(audio, visual).sum())
        gradients.append([p.grad for p in net.blocks.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_wrong_length_says_so(net: Tavlo) -> None:
    short = clips(1, 5)
    short["spectrogram"] = short["spectrogram"][:, :9]
    with pytest.raises(ValueError, match="9 steps are no multiple of 2 per frame"):
        net(short)
    with pytest.raises(ValueError, match="7 frames, the positions end at 6"):
        net(clips(1, 7))


def test_the_encoder_is_torchvisions_resnet18_by_default() -> None:
    net = resnet18().eval()
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    theirs = nn.Sequential(stem, net.layer1, net.layer2, net.layer3, net.layer4).eval()
    ours = VisualEncoder(TavloSizes()).eval()
    ours.stages.load_state_dict(theirs.state_dict())
    frames = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(frames), theirs(frames))


def test_fewer_and_narrower_stages_see_small_pictures_as_finely() -> None:
    sizes = TavloSizes(width=16, stage_blocks=(1, 1, 1))
    assert (TavloSizes().feature_size, sizes.feature_size) == (512, 64)
    assert VisualEncoder(sizes)(torch.randn(1, 3, 112, 112)).shape == (1, 64, 7, 7)
    narrow = TavloSizes(width=16, stage_blocks=(1, 1, 0), grid=7)
    frames = torch.randn(1, 3, 112, 112, requires_grad=True)
    answer = VisualEncoder(narrow).eval()(frames)
    assert answer.shape == (1, 64, 7, 7)
    # The middle place sees 51 pixels: 27 of the first block, 24 more of the second.
    torch.autograd.backward(answer[0, :, 3, 3].sum())
    assert frames.grad is not None
    reached = frames.grad[0].abs().amax((0, 1)).nonzero()
    assert int(reached.max() - reached.min()) + 1 <= 51


@pytest.mark.parametrize(("num_frames", "size"), [(300, 64), (12, 16), (2, 3), (1, 8)])
def test_every_frame_has_a_position_of_its_own_from_the_start(num_frames: int, size: int) -> None:
    position = sinusoidal_positions(num_frames, size)
    assert position.shape == (num_frames, size)
    assert position.abs().max() <= 1
    apart = torch.cdist(position, position) + torch.eye(num_frames)
    assert apart.min() > 0.1, "attention can tell neighbours before it has learnt anything"


@pytest.mark.parametrize("width", [4, 8])
def test_a_narrow_encoders_gradients_are_those_of_another_kernel(width: int) -> None:
    """With a strided 1x1 convolution they were wrong or ended the process (oneDNN issue 6035)."""
    torch.manual_seed(0)
    encoder = VisualEncoder(TavloSizes(width=width)).train()
    slow = VisualEncoder(TavloSizes(width=width)).double().train()
    slow.load_state_dict(encoder.state_dict())
    pictures = torch.randn(12, 3, 64, 64).to(memory_format=torch.channels_last)
    slow(pictures.double()).square().mean().backward()
    for _ in range(3):
        encoder.zero_grad()
        encoder(pictures).square().mean().backward()
        for (name, value), other in zip(encoder.named_parameters(), slow.parameters(), strict=True):
            assert value.grad is not None
            assert other.grad is not None
            away = (value.grad - other.grad).norm() / other.grad.norm()
            assert away < 1e-3, (name, float(away))
