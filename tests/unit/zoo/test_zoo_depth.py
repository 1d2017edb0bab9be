"""Networks without their last convolutions."""

import pytest
import torch

from spikeprune import channel_masks, model_view, shrink
from spikeprune.errors import RecipeError
from spikeprune.zoo import make, shallower


@pytest.mark.parametrize(("name", "image"), [("vgg9", 32), ("vgg11", 32), ("vggsnn", 32), ("sca_dvs", 32)])
def test_what_is_left_keeps_its_weights_and_runs(name, image):
    whole = make(name, width=1 / 16, timesteps=2, image=(2, image, image), coding="events")
    net = shallower(whole, "conv4")
    assert [x for x, _ in net.named_children() if x.startswith("conv")] == ["conv1", "conv2", "conv3"]
    assert torch.equal(net.conv3.weight, whole.conv3.weight)
    assert [x for x, _ in net.named_children() if "pool" in x] == [x for x, _ in whole.named_children() if "pool" in x]
    x = torch.rand(2, 3, 2, image, image).round()
    assert net(x).shape == whole(x).shape
    view = model_view(net, x)
    assert len(view.channel_layers()) == 3
    with torch.no_grad():
        net.conv1.weight.zero_()
    assert bool(whole.conv1.weight.any())  # a copy


def test_of_a_network_that_was_made_narrower():
    whole = make("vgg9", width=1 / 16, timesteps=2, coding="direct")
    view = model_view(whole, torch.rand(2, 3, 32, 32))
    small = shrink(view, channel_masks(view, {"conv3": torch.arange(8) < 3}))
    assert shallower(small, "conv4").fc.in_features == 3 * 4


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("vgg9", "conv1", "unknown convolution to leave out 'conv1'"),
        ("vgg9", "conv9", "did you mean|there are"),
        ("vgg9", "fc", "convolution to leave out"),
        ("vgg16", "conv4", "only a stack of convolutions"),
        ("sew_resnet18", "conv4", "only a stack of convolutions"),
    ],
)
def test_what_cannot_be_made_shallower_is_refused(name, layer, message):
    with pytest.raises(RecipeError, match=message):
        shallower(make(name, width=1 / 16), layer)
