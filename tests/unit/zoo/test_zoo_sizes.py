"""The number of weights of every network, as its paper has it or as counted by hand."""

import pytest
import torch

from spikeprune import zoo


@pytest.fixture
def undrawn(monkeypatch):
    """Leave weights as the memory was: nothing is drawn, so no page of it is touched."""
    for draw in ("kaiming_normal_", "kaiming_uniform_", "uniform_"):
        monkeypatch.setattr(torch.nn.init, draw, lambda weight, *args, **how: weight)


def counts(name, **options):
    """Weights of the convolutions, and of the linear layers."""
    net = zoo.make(name, **options)
    sizes = [(p.dim(), p.numel()) for p in net.parameters() if p.dim() > 1]
    return sum(n for dim, n in sizes if dim == 4), sum(n for dim, n in sizes if dim == 2)


# The table of base architectures.
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("name", "convolutions", "others"),
    [
        ("six_conv_two_fc", 2_956_032, 33_759_232),
        ("vgg16", 14_710_464, 529_408),
        ("vgg9", 7_005_888, 20_480),
        ("vggsnn", 9_217_152, 460_800),
        ("sca_dvs", 1_107_072, 40_960),
    ],
)
def test_sizes_are_the_papers(name, convolutions, others):
    assert counts(name) == (convolutions, others)


BASIC_18 = [
    3 * 64 * 9,
    *[64 * 64 * 9] * 4,
    *[64 * 128 * 9, 128 * 128 * 9, 64 * 128, 128 * 128 * 9, 128 * 128 * 9],
    *[128 * 256 * 9, 256 * 256 * 9, 128 * 256, 256 * 256 * 9, 256 * 256 * 9],
    *[256 * 512 * 9, 512 * 512 * 9, 256 * 512, 512 * 512 * 9, 512 * 512 * 9],
]
NINETEEN = [
    3 * 128 * 9,
    *[128 * 128 * 9] * 6,
    *[128 * 256 * 9, 256 * 256 * 9, 128 * 256, *[256 * 256 * 9] * 4],
    *[256 * 512 * 9, 512 * 512 * 9, 256 * 512, *[512 * 512 * 9] * 2],
]
ELEVEN = [3 * 64, 64 * 128, 128 * 256, 256 * 256, 256 * 512, 512 * 512, 512 * 512, 512 * 512]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("name", "convolutions", "others"),
    [
        ("resnet18", BASIC_18, 512 * 10),
        ("preact_resnet18", BASIC_18, 512 * 10),
        ("sew_resnet18", BASIC_18, 512 * 10),
        ("resnet19", NINETEEN, 512 * 256 + 256 * 10),
        ("vgg11", [9 * x for x in ELEVEN], 512 * 10),
    ],
)
def test_sizes_counted_by_hand(name, convolutions, others):
    assert counts(name) == (sum(convolutions), others)


def test_the_sizes_that_docstrings_state():
    assert sum(BASIC_18) == 11_159_232
    assert sum(NINETEEN) == 12_553_600
    assert 9 * sum(ELEVEN) == 9_217_728


@pytest.mark.usefixtures("undrawn")
def test_six_conv_two_fc_at_a_quarter_is_64_channels_and_512():
    assert counts("six_conv_two_fc", width=0.25)[1] == 64 * 64 * 512 + 512 * 100
