"""The network does what its equations say."""

from __future__ import annotations

import math

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
    waves,
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


def clips(batch: int, num_frames: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    dice = torch.Generator().manual_seed(seed)
    frames = torch.randn(batch, num_frames, 3, 64, 64, generator=dice)
    spectrogram = torch.randn(batch, 16, 2 * num_frames, generator=dice)
    return frames, spectrogram


def test_the_default_sizes_are_the_papers() -> None:
    sizes = TavloSizes()
    assert (sizes.feature_size, sizes.grid, sizes.max_frames) == (512, 7, 300)
    assert sizes.order == "spatial-temporal"
    with pytest.raises(ValueError, match="num_heads 7 does not divide"):
        TavloSizes(num_heads=7)


@torch.no_grad()
def test_shapes_are_those_of_the_equations(net: Tavlo) -> None:
    frames, spectrogram = clips(2, 5)
    sound, places = net.encode(frames, spectrogram)
    assert sound.shape == (2, 5, 512)
    assert places.shape == (2, 5, 2, 2, 512)
    sound, places = net(frames, spectrogram)
    assert sound.shape == (2, 5, 528)
    assert places.shape == (2, 5, 2, 2, 528)
    heat = similarity(sound, places)
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
    sound = torch.randn(1, 3, 512, dtype=torch.float64)
    places = torch.randn(1, 3, 2, 2, 512, dtype=torch.float64)
    tokens = torch.zeros(3, 5, 528, dtype=torch.float64)
    for t in range(3):
        tokens[t, 0] = torch.cat([sound[0, t], net.time_position[t]])  # eq. 5
        for place in range(4):
            seen = places[0, t, place // 2, place % 2] + net.space_position[place // 2, place % 2]
            tokens[t, 1 + place] = torch.cat([seen, net.time_position[t]])  # eq. 4
    for block in net.blocks:
        assert isinstance(block, AstBlock)
        steps = ["space", "time"] if order == "spatial-temporal" else ["time", "space"]
        for step in steps:
            if step == "space":
                tokens = torch.stack([slow_attention(block.spatial, tokens[t]) for t in range(3)])
            else:
                columns = [slow_attention(block.temporal, tokens[:, n]) for n in range(5)]
                tokens = torch.stack(columns, 1)
    fast_sound, fast_places = net.attend(sound, places)
    torch.testing.assert_close(fast_sound[0], tokens[:, 0])
    torch.testing.assert_close(fast_places[0].flatten(1, 2), tokens[:, 1:])


@torch.no_grad()
def test_each_sound_embedding_hears_its_own_frame_only(net: Tavlo) -> None:
    _, spectrogram = clips(1, 5)
    heard = net.hear(spectrogram)
    changed = spectrogram.clone()
    changed[:, :, 4:6] += 1.0  # the two steps of frame 2
    moved = (net.hear(changed) - heard).abs().amax(-1)[0] > 0
    assert moved.tolist() == [False, False, True, False, False]


@torch.no_grad()
def test_the_order_of_frames_matters(net: Tavlo) -> None:
    sound, places = net.encode(*clips(1, 5))
    turned = torch.tensor([4, 2, 0, 3, 1])
    straight = net.attend(sound, places)[0]
    permuted = net.attend(sound[:, turned], places[:, turned])[0]
    assert (straight[:, turned] - permuted).abs().max() > 1e-4


@torch.no_grad()
def test_a_batch_of_one_equals_a_batch_of_many(net: Tavlo) -> None:
    frames, spectrogram = clips(3, 4)
    together = net(frames, spectrogram)
    for number in range(3):
        alone = net(frames[number : number + 1], spectrogram[number : number + 1])
        for part, whole in zip(alone, together, strict=True):
            torch.testing.assert_close(part[0], whole[number], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_frames_that_do_not_exist_change_nothing(net: Tavlo) -> None:
    frames, spectrogram = clips(1, 4)
    sound, places = net(frames, spectrogram)
    padded = torch.cat([frames, torch.randn(1, 2, 3, 64, 64)], 1)
    longer = torch.cat([spectrogram, torch.randn(1, 16, 4)], 2)
    present = torch.tensor([[True] * 4 + [False] * 2])
    sound_padded, places_padded = net(padded, longer, present)
    torch.testing.assert_close(sound_padded[:, :4], sound, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(places_padded[:, :4], places, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("order", ["spatial-temporal", "temporal-spatial"])
@pytest.mark.parametrize("meeting", ["joint", "apart", "alone"])
def test_sound_and_places_know_of_each_other_only_where_they_meet(order: str, meeting: str) -> None:
    torch.manual_seed(4)
    net = Tavlo(TavloSizes(**{**vars(SMALL), "order": order, "meeting": meeting})).eval()
    sound, places = net.encode(*clips(1, 5))
    heard, seen = net.attend(sound, places)
    other_heard, _ = net.attend(sound, places + torch.randn_like(places))
    _, other_seen = net.attend(sound + torch.randn_like(sound), places)
    assert torch.equal(heard, other_heard) is (meeting != "joint")
    assert torch.equal(seen, other_seen) is (meeting != "joint")


@torch.no_grad()
@pytest.mark.parametrize("meeting", ["apart", "alone"])
def test_a_place_alone_knows_nothing_of_other_places(meeting: str) -> None:
    torch.manual_seed(5)
    net = Tavlo(TavloSizes(**{**vars(SMALL), "meeting": meeting})).eval()
    sound, places = net.encode(*clips(1, 5))
    other = places.clone()
    other[:, :, 0, 0] += torch.randn_like(other[:, :, 0, 0])
    _, seen = net.attend(sound, places)
    _, other_seen = net.attend(sound, other)
    assert not torch.equal(seen[:, :, 0, 0], other_seen[:, :, 0, 0])
    assert torch.equal(seen[:, :, 0, 1:], other_seen[:, :, 0, 1:]) is (meeting == "alone")


@torch.no_grad()
def test_blocks_that_start_as_identity_change_nothing_yet() -> None:
    net = Tavlo(TavloSizes(**{**vars(SMALL), "start": "identity"})).eval()
    sound, places = net.encode(*clips(1, 5))
    heard, seen = net.attend(sound, places)
    assert torch.equal(heard[..., :512], sound)
    assert torch.equal(seen[..., :512], places + net.space_position)


def test_cosines_are_never_of_half_precision() -> None:
    sound, places = torch.randn(1, 2, 8), torch.randn(1, 2, 3, 3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = similarity(sound, places)
    assert torch.equal(inside, similarity(sound, places))
    assert similarity(sound.bfloat16(), places.bfloat16()).dtype == torch.float32
    assert similarity(sound.double(), places.double()).dtype == torch.float64


def test_recomputing_gives_the_same_gradients() -> None:
    frames, spectrogram = clips(1, 3)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(3)
        net = Tavlo(SMALL, recompute=recompute).train()
        sound, places = net(frames, spectrogram)
        torch.autograd.backward(similarity(sound, places).sum())
        gradients.append([p.grad for p in net.blocks.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_wrong_length_says_so(net: Tavlo) -> None:
    frames, spectrogram = clips(1, 5)
    with pytest.raises(ValueError, match="9 steps are no multiple of 2 per frame"):
        net(frames, spectrogram[:, :, :9])
    with pytest.raises(ValueError, match="7 frames, the positions end at 6"):
        net(*clips(1, 7))


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
    seen = frames.grad[0].abs().amax((0, 1)).nonzero()
    assert int(seen.max() - seen.min()) + 1 <= 51


@pytest.mark.parametrize(("num_frames", "size"), [(300, 64), (12, 16), (2, 3), (1, 8)])
def test_every_frame_has_a_position_of_its_own_from_the_start(num_frames: int, size: int) -> None:
    position = waves(num_frames, size)
    assert position.shape == (num_frames, size)
    assert position.abs().max() <= 1
    apart = torch.cdist(position, position) + torch.eye(num_frames)
    assert apart.min() > 0.1, "attention can tell neighbours before it has learnt anything"
