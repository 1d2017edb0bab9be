"""Batch norms measured anew against averages taken by hand, and what is left as it was."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from small_nets import JellyGuest, SnnGuest, assert_same, lively, noise, photograph, spikes
from spikeprune import model_view
from spikeprune.errors import EmptyCalibration, MeasureError, ModelError
from spikeprune.norms import recalibrate

T = 4


def flat():
    """Two norms in a row of ordinary layers, (N, 6) in."""
    return ready(
        nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 4), nn.BatchNorm1d(4))
    )


def images():
    """SpikingJelly, its own norm over timesteps, (T, N, 2, 4, 4) in."""
    net = nn.Sequential(layer.Conv2d(2, 3, 3), layer.BatchNorm2d(3), neuron.IFNode(), layer.Flatten(), layer.Linear(12, 3))
    functional.set_step_mode(net, "m")
    return ready(net)


def ready(net):
    """Draw the weights; the norms' own gains are one, their shifts zero."""
    for norm in norms_of(lively(net)):
        nn.init.ones_(norm.weight)
    return net


def norms_of(net):
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def by_hand(view, batches):
    """Mean and unbiased variance of each channel, batch by batch; each norm sees what those before it give in training."""
    net, norms, seen = view.net, norms_of(view.net), []
    handles = [norm.register_forward_pre_hook(lambda m, args: seen.append((m, args[0].detach()))) for norm in norms]
    moments = {norm: [] for norm in norms}
    net.eval()
    for norm in norms:
        norm.train()
    for x in batches:
        seen.clear()
        with torch.no_grad():
            view(x)
        for norm, given in seen:
            channels = given.flatten(0, 1) if given.dim() == 5 else given
            rows = channels.transpose(0, 1).flatten(1).double()
            centred = rows - rows.mean(1, keepdim=True)
            moments[norm].append((rows.mean(1), centred.square().sum(1) / (rows.shape[1] - 1)))
    for handle in handles:
        handle.remove()
    return [tuple(torch.stack(part).mean(0) for part in zip(*moments[norm], strict=True)) for norm in norms]


NETS = {
    "linear": (flat, lambda n: noise(n, 6, seed=n), False),
    "convolution over time": (images, lambda n: spikes(T, n, 2, 4, 4, seed=n), True),
}


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("make", "data", "spiking"), NETS.values(), ids=NETS)
def test_statistics_are_their_means_over_the_batches(make, data, spiking, momentum):
    net, batches = make(), [data(n) for n in (5, 2, 8)]
    view = model_view(net, batches[0], spiking=spiking)
    for norm in norms_of(net):
        norm.momentum = momentum
    expected = by_hand(view.clone(), batches)
    assert recalibrate(view, batches) == len(expected)
    for norm, (mean, variance) in zip(norms_of(net), expected, strict=True):
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-4, atol=1e-6)
        assert norm.momentum == momentum
        assert int(norm.num_batches_tracked) == 3
        assert not torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))


def test_what_was_there_before_does_not_matter():
    x, nets = noise(6, 6), [flat(), flat()]
    for norm in norms_of(nets[1]):
        norm.running_mean.fill_(100.0)
        norm.num_batches_tracked.fill_(7)
    for net in nets:
        recalibrate(model_view(net, x, spiking=False), [(x, torch.arange(6))])  # labels are not used
    for one, other in zip(norms_of(nets[0]), norms_of(nets[1]), strict=True):
        assert torch.equal(one.running_mean, other.running_mean)
        assert torch.equal(one.running_var, other.running_var)


def except_for(photo, norms):
    return {
        key: value
        for key, value in photo.items()
        if not (key[0] in norms and key[-1] == "value" and key[1].startswith(("running", "num")))
    }


@pytest.mark.parametrize("make", [SnnGuest, JellyGuest])
@pytest.mark.parametrize("training", [True, False])
def test_all_else_is_left_as_found(make, training):
    net, x = make().train(training), spikes(T, 3, 6)
    view = model_view(net, x)
    net.norm.weight.requires_grad_(False)
    net.norm.momentum = 0.3
    net(x).sum().backward()  # in use: charged neurons, gradients
    before = photograph(net)
    recalibrate(view, [x, x])
    after = photograph(net)
    assert not torch.equal(before["norm", "running_mean", "value"], after["norm", "running_mean", "value"])
    assert_same(except_for(before, {"norm"}), except_for(after, {"norm"}))
    assert net.norm.momentum == 0.3


@pytest.mark.parametrize("make", [SnnGuest, JellyGuest])
def test_when_a_batch_fails_the_statistics_are_left_too(make):
    net, x = make(), spikes(T, 3, 6)
    view = model_view(net, x)
    net(x).sum().backward()
    before = photograph(net)

    def batches():
        yield x
        net.fail = True
        yield x

    with pytest.raises(MeasureError, match=r"could not run batch 1, of shape .* the model broke"):
        recalibrate(view, batches())
    net.fail = False
    assert_same(before, photograph(net))
    for data, error in (
        ([], EmptyCalibration),
        ([x, x[:, :0]], EmptyCalibration),
        ([x[..., :2]], MeasureError),
        (x, MeasureError),
    ):
        with pytest.raises(error):
            recalibrate(view, data)
        assert_same(before, photograph(net))


def test_norms_without_statistics_or_that_are_not_called_are_passed_by():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(5)
            self.plain, self.spare = nn.BatchNorm1d(5, track_running_stats=False), nn.BatchNorm1d(5)

        def forward(self, x):
            return self.plain(self.norm(self.fc(x)))

    net, x = Spare(), noise(6, 6)
    net.spare.running_mean.fill_(3.0)
    assert recalibrate(model_view(net, x, spiking=False), [x]) == 1
    assert net.spare.running_mean.tolist() == [3.0] * 5
    assert net.plain.running_mean is None


def test_a_network_without_norms():
    net, x = nn.Linear(6, 5), noise(6, 6)
    assert recalibrate(model_view(net, x, spiking=False), [x]) == 0


def test_the_model_itself_is_no_view():
    with pytest.raises(ModelError, match="a view is needed"):
        recalibrate(flat(), [noise(2, 6)])


def test_dropout_is_off():
    x, net = noise(8, 6), flat()
    net.train()
    view = model_view(net, x, spiking=False)
    recalibrate(view, [x])
    first = net[5].running_mean.clone()
    torch.manual_seed(1)
    recalibrate(view, [x])
    assert torch.equal(net[5].running_mean, first)
    with torch.no_grad():
        given = net[4](net[2](nn.functional.batch_norm(net[0](x), None, None, net[1].weight, net[1].bias, training=True)))
    torch.testing.assert_close(first, given.mean(0))
