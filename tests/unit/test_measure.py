"""The statistics of the pass against autograd and brute force, and what the pass refuses."""

import gc
import weakref

import pytest
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from small_nets import JellyGuest, Loop, SnnGuest, assert_same, hooks, jelly, lively, noise, photograph, spikes, unroll
from spikeprune.errors import EmptyCalibration, LayoutError, MeasureError, MissingLoss, NonFinite, NotMeasured
from spikeprune.measure import Need, measure
from spikeprune.view.model_view import model_view

T, N = 4, 2
COUNT, RATE, GRADIENT = {Need.INPUT_COUNT}, {Need.SPIKE_RATE}, {Need.WEIGHT_GRADIENT}


def loss(out, y):
    return F.cross_entropy(out.mean(0), y)


def folded():
    """SpikingJelly: a convolution and a linear layer that see time folded into the batch, (T, N, 1, 3, 3) in."""
    net = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(1, 2, 2)), neuron.IFNode(), layer.SeqToANNContainer(nn.Flatten(), nn.Linear(8, 3)), neuron.IFNode()
    )  # fmt: skip
    functional.set_step_mode(lively(net), "m")
    return net


NETS = {
    "step": (Loop, (6,), None),
    "step, driven": (lambda: jelly("s"), (6,), unroll),
    "sequence": (jelly, (6,), None),
    "folded": (folded, (1, 3, 3), None),
}


def labelled(shape, sizes=(2, 3, 1)):
    """Batches of unequal size."""
    return [(spikes(T, n, *shape, seed=n), torch.arange(n) % 3) for n in sizes]


# The numbers


@pytest.mark.parametrize(("make", "shape", "forward"), NETS.values(), ids=NETS)
def test_weight_gradient_is_the_mean_of_absolute_gradients_a_batch_weighing_as_much_as_its_samples(make, shape, forward):
    net, batches = make(), labelled(shape)
    view = model_view(net, batches[0][0], forward=forward)
    stats = measure(view, batches, GRADIENT, loss_fn=loss)
    assert (stats.batches, stats.samples) == (3, 6)
    for found in view.layers:
        total = torch.zeros(found.weight.shape, dtype=torch.double)
        for x, y in batches:
            functional.reset_net(net)
            net.zero_grad()
            loss((forward or nn.Module.__call__)(net, x), y).backward()
            total += len(y) * found.weight.grad.abs().double()
        assert total.sum() > 0
        assert torch.equal(stats[found.name].weight_gradient, total / 6)


@pytest.mark.parametrize(("make", "shape", "forward"), NETS.values(), ids=NETS)
def test_input_count_by_brute_force(make, shape, forward):
    net, batches = make(), labelled(shape)
    view = model_view(net, batches[0][0], forward=forward)
    stats = measure(view, batches, COUNT)
    counts = torch.zeros(T, *shape, dtype=torch.double)
    for x, _ in batches:
        for t in range(T):
            for sample in x[t]:
                counts[t] += sample != 0
    first = stats[view.layers[0].name]
    assert torch.equal(first.input_count, counts / 6)
    assert first.binary_input


def test_input_count_behind_a_neuron():
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(2, 2, bias=False), neuron.IFNode(v_threshold=1.0), layer.Linear(2, 1), neuron.IFNode())
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.5]]))
    x = torch.tensor([[[1.0, 1.0]], [[0.0, 1.0]], [[1.0, 0.0]]])  # T = 3, N = 1
    stats = measure(model_view(net, x), [x], COUNT | RATE)
    # Neuron 0 fires at once; neuron 1 gathers two halves first.
    assert stats["2"].input_count.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert stats.rates["1"].tolist() == [0.5, 0.5, 0.5]


def test_layers_called_once_are_counted_once():
    class Static(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif, self.fc2 = nn.Linear(3, 2), neuron.IFNode(step_mode="m"), nn.Linear(2, 2)
            lively(self)

        def forward(self, x):
            return self.fc2(self.lif(self.fc1(x).repeat(T, 1, 1)).mean(0))

    x = torch.tensor([[0.5, 0.0, 1.0], [0.0, 0.0, 2.0]])
    stats = measure(model_view(Static(), x), [x], COUNT)
    assert stats["fc1"].input_count.tolist() == [[0.5, 0, 1]]
    assert stats["fc2"].input_count.shape == (1, 2)
    assert not stats["fc1"].binary_input


@pytest.mark.parametrize(("value", "binary"), [(1.0, True), (-1.0, True), (0.5, False), (2.0, False)])
def test_binary_input_over_the_whole_pass(value, binary):
    x = spikes(T, N, 6)
    odd = x.clone()
    odd[2, 1, 3] = value
    view = model_view(jelly(), x)
    assert measure(view, [x, odd, x], COUNT)["0"].binary_input is binary


@pytest.mark.parametrize(("make", "shape", "forward"), NETS.values(), ids=NETS)
def test_rates_by_brute_force(make, shape, forward):
    net, batches = make(), labelled(shape)
    view = model_view(net, batches[0][0], forward=forward)
    fired = torch.zeros(T, dtype=torch.double)
    for x, _ in batches:
        out = view(x).tolist()
        for t in range(T):
            fired[t] += sum(v for sample in out[t] for v in sample) / 3
    last = list(view.neurons)[-1]
    rates = measure(view, batches, RATE).rates
    assert list(rates) == list(view.neurons)
    assert fired.sum() > 0
    torch.testing.assert_close(rates[last], fired / 6, rtol=0, atol=1e-12)


def test_several_needs_in_one_pass():
    view, batches = model_view(jelly(), noise(T, N, 6)), labelled((6,))
    together = measure(view, batches, set(Need), loss_fn=loss)
    assert list(together) == ["0", "2"]
    assert len(together) == 2
    assert torch.equal(together["2"].weight_gradient, measure(view, batches, GRADIENT, loss_fn=loss)["2"].weight_gradient)
    assert torch.equal(together["2"].input_count, measure(view, batches, COUNT)["2"].input_count)
    assert torch.equal(together.rates["3"], measure(view, batches, RATE).rates["3"])


class Noisy(nn.Module):
    """A model that draws noise of its own."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 5), neuron.IFNode(step_mode="m")
        lively(self)

    def forward(self, x):
        return self.lif(self.fc(x + torch.rand_like(x).round()))


def test_the_models_own_noise_follows_the_seed():
    view, x = model_view(Noisy(), noise(T, N, 6)), torch.zeros(T, N, 6)
    counts = []
    for seed in (0, 0, 1):
        torch.rand(1)  # the state of the process does not matter
        counts.append(measure(view, [x], COUNT, seed=seed)["fc"].input_count)
    assert torch.equal(counts[0], counts[1])
    assert not torch.equal(counts[0], counts[2])


# Batches


def test_batches_of_every_form():
    view, x, y = model_view(jelly(), noise(T, N, 6)), spikes(T, N, 6), torch.tensor([0, 1])
    expected = measure(view, [x], COUNT)["2"].input_count
    for batch in (x, (x,), [x], (x, y), [x, y]):
        assert torch.equal(measure(view, [batch], COUNT)["2"].input_count, expected)
    stats = measure(view, (batch for batch in [x, x]), COUNT)
    assert stats.batches == 2
    assert torch.equal(stats["2"].input_count, expected)


def test_a_data_loader_of_batch_first_samples():
    x, y = spikes(5, T, 6), torch.arange(5) % 3
    view = model_view(jelly(), x[:2].transpose(0, 1), forward=None)
    swapped = model_view(jelly(), x[:2], forward=lambda net, x: net(x.transpose(0, 1)))
    loader = DataLoader(TensorDataset(x, y), batch_size=2)
    stats = measure(swapped, loader, set(Need), loss_fn=loss)
    assert (stats.batches, stats.samples) == (3, 5)
    assert torch.equal(stats["0"].input_count, measure(view, [x.transpose(0, 1)], COUNT)["0"].input_count)


def test_a_shuffling_loader_leaves_the_random_state():
    view = model_view(jelly(), noise(T, N, 6), forward=None)
    loader = DataLoader(spikes(6, T, 6), batch_size=2, shuffle=True, collate_fn=lambda rows: torch.stack(rows, dim=1))
    before = torch.get_rng_state()
    measure(view, loader, COUNT)
    assert torch.equal(torch.get_rng_state(), before)


# Refusals


def test_what_was_not_gathered():
    view = model_view(jelly(), noise(T, N, 6))
    stats = measure(view, [noise(T, N, 6)], RATE)
    with pytest.raises(NotMeasured, match=r"weight_gradient of layer '0' was not gathered; add Need.WEIGHT_GRADIENT"):
        _ = stats["0"].weight_gradient
    with pytest.raises(NotMeasured, match=r"input_count of layer '2' was not gathered; add Need.INPUT_COUNT"):
        _ = stats["2"].input_count
    with pytest.raises(NotMeasured, match=r"add Need.INPUT_COUNT"):
        _ = stats["2"].binary_input
    with pytest.raises(NotMeasured, match=r"spike rates were not gathered; add Need.SPIKE_RATE"):
        _ = measure(view, [noise(T, N, 6)], COUNT).rates


def test_needs_that_are_no_needs():
    with pytest.raises(MeasureError, match=r"members of spikeprune.Need; got \['input_count'\]"):
        measure(model_view(jelly(), noise(T, N, 6)), [], {"input_count"})


def test_missing_loss():
    with pytest.raises(MissingLoss, match=r"Need.WEIGHT_GRADIENT takes gradients, so a loss_fn is needed: pass loss_fn"):
        measure(model_view(jelly(), noise(T, N, 6)), [noise(T, N, 6)], set(Need))


@pytest.mark.parametrize("needs", [COUNT, RATE, set(Need)])
def test_empty_calibration(needs):
    spent = iter([])
    with pytest.raises(EmptyCalibration, match=r"held no batch.* a generator is empty the second time"):
        measure(model_view(jelly(), noise(T, N, 6)), spent, needs, loss_fn=loss)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("needs", [COUNT, RATE, GRADIENT])
def test_inputs_that_are_not_finite(needs, bad):
    view, batches = model_view(jelly(), noise(T, N, 6)), labelled((6,))
    batches[1][0][2, 1, 3] = bad
    with pytest.raises(NonFinite, match=r"1 of \d+ inputs of layer '0' are NaN or infinite. Check calibration batch 1"):
        measure(view, batches, needs, loss_fn=loss)


def test_inputs_that_are_not_finite_in_the_middle():
    net = nn.Sequential(nn.Linear(6, 5), neuron.IFNode(), nn.LayerNorm(5, eps=0.0), nn.Linear(5, 3))
    with torch.no_grad():
        net[0].weight.zero_()  # silence, divided by its own deviation
    view = model_view(net, noise(1, N, 6), forward=unroll)
    with pytest.raises(NonFinite, match=r"10 of 10 inputs of layer '3' are NaN .* norms before the layer"):
        measure(view, [noise(1, N, 6)], COUNT)


@pytest.mark.parametrize("needs", [COUNT, RATE, GRADIENT])
def test_weights_that_are_not_finite(needs):
    net = jelly()
    view = model_view(net, noise(T, N, 6))
    with torch.no_grad():
        net[2].weight[1, 2:4] = float("nan")
    with pytest.raises(NonFinite, match=r"2 of 15 weights of layer '2' are NaN or infinite. Go back to a checkpoint"):
        measure(view, labelled((6,)), needs, loss_fn=loss)


def test_gradients_that_are_not_finite():
    view = model_view(jelly(), noise(T, N, 6))
    root = lambda out, y: (out * 0).sum().abs().sqrt() + 0 * loss(out, y)  # noqa: E731  sqrt has no slope at zero
    with pytest.raises(NonFinite, match=r"gradients of layer '0' are NaN or infinite. Check calibration batch 0 and the loss"):
        measure(view, labelled((6,)), GRADIENT, loss_fn=root)


def test_a_loss_that_is_not_finite():
    view = model_view(jelly(), noise(T, N, 6))
    with pytest.raises(NonFinite, match=r"the loss of calibration batch 0 is inf"):
        measure(view, labelled((6,)), GRADIENT, loss_fn=lambda out, y: loss(out, y) / 0)


def test_labels_out_of_range():
    view, batches = model_view(jelly(), noise(T, N, 6)), labelled((6,))
    batches[1] = (batches[1][0], torch.tensor([0, 7, 1]))
    with pytest.raises(
        MeasureError, match=r"calibration batch 1: IndexError: .*targets from 0 to 7; labels must be 0 to classes - 1"
    ):
        measure(view, batches, GRADIENT, loss_fn=loss)


def test_missing_labels():
    view = model_view(jelly(), noise(T, N, 6))
    with pytest.raises(MeasureError, match=r"calibration batch 0 has no target.* give batches of \(x, y\)"):
        measure(view, [noise(T, N, 6)], GRADIENT, loss_fn=loss)


@pytest.mark.parametrize(
    "broken",
    [lambda out, y: out.mean(0), lambda out, y: 1.5, lambda out, y: out.detach().sum()],
    ids=["shape", "float", "detached"],
)
def test_losses_that_are_no_losses(broken):
    view = model_view(jelly(), noise(T, N, 6))
    with pytest.raises(MeasureError, match="must return one number that depends on the output"):
        measure(view, labelled((6,)), GRADIENT, loss_fn=broken)


def test_a_layer_behind_a_detached_output():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif, self.fc2 = nn.Linear(6, 5), neuron.IFNode(step_mode="m"), nn.Linear(5, 3)

        def forward(self, x):
            return self.fc2(self.lif(self.fc1(x)).detach())

    stats = measure(model_view(Detached(), noise(T, N, 6)), labelled((6,)), GRADIENT, loss_fn=loss)
    assert stats["fc2"].weight_gradient.sum() > 0
    with pytest.raises(NotMeasured, match=r"layer 'fc1' was not gathered: the loss does not depend on its weight.* detach"):
        _ = stats["fc1"].weight_gradient


def test_a_loss_that_no_weight_moves():
    net = nn.Linear(3, 2)
    view = model_view(net, torch.rand(2, 3), spiking=False)
    with pytest.raises(MeasureError, match="the loss of calibration batch 0 depends on the weight of no layer"):
        measure(view, [(torch.rand(2, 3), 0)], GRADIENT, loss_fn=lambda out, y: net.bias.sum())


def test_a_layer_that_some_batches_pass_by_has_no_gradient_there():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    view = model_view(net, torch.rand(2, 3), spiking=False)
    x = torch.rand(2, 3)
    part = lambda out, y: out.sum() if y else net[0].weight.sum()  # noqa: E731
    both = measure(view, [(x, 1), (x, 0)], GRADIENT, loss_fn=part)["1"].weight_gradient
    assert torch.equal(both, measure(view, [(x, 1)], GRADIENT, loss_fn=part)["1"].weight_gradient / 2)


@pytest.mark.parametrize("timesteps", [1, 2, 8])
@pytest.mark.parametrize("needs", [COUNT, RATE, GRADIENT])
@pytest.mark.parametrize(("make", "shape", "forward"), NETS.values(), ids=NETS)
def test_batches_of_other_timesteps(make, shape, forward, needs, timesteps):
    view = model_view(make(), noise(T, N, *shape), forward=forward)
    batches = [noise(T, N, *shape), noise(timesteps, T, *shape)]  # T * timesteps rows: a folded layer cannot tell
    with pytest.raises(LayoutError, match=rf"saw {timesteps} timesteps in batch 1, but 4 when .*View it again"):
        measure(view, [(x, torch.zeros(x.shape[1], dtype=torch.long)) for x in batches], needs, loss_fn=loss)


@pytest.mark.parametrize("needs", [COUNT, GRADIENT])
def test_a_batch_that_the_model_cannot_run_is_named(needs):
    view = model_view(jelly(), noise(T, N, 6))
    batches = [(noise(T, N, 6), torch.tensor([0, 1])), (noise(T, N, 7), torch.tensor([0, 1]))]
    with pytest.raises(
        MeasureError, match=r"Sequential could not run batch 1, of shape \(4, 2, 7\): RuntimeError: .* as the example"
    ):
        measure(view, batches, needs, loss_fn=loss)


@pytest.mark.parametrize(
    "one", [lambda x: x, lambda x: (x, torch.tensor([0, 1])), lambda x: (x,)], ids=["tensor", "pair", "single"]
)
def test_one_batch_in_place_of_batches(one):
    view, x = model_view(jelly(), noise(T, N, 6)), noise(T, N, 6)
    with pytest.raises(MeasureError, match=r"one batch in place of batches.* of shape \(4, 2, 6\).* in a list"):
        measure(view, one(x), COUNT)
    assert measure(view, ((x, None), (x, None)), COUNT).batches == 2


@pytest.mark.parametrize("none", [None, 3, print])
def test_what_holds_no_batches(none):
    with pytest.raises(MeasureError, match=r"gives no batches; pass a list or a DataLoader"):
        measure(model_view(jelly(), noise(T, N, 6)), none, COUNT)


def test_a_layer_replaced_since():
    net = jelly()
    view = model_view(net, noise(T, N, 6))
    net[2] = layer.Linear(5, 3, step_mode="m")
    with pytest.raises(LayoutError, match=r"'2' saw 0 timesteps in batch 0, but 4 when the model was viewed"):
        measure(view, [noise(T, N, 6)], COUNT)


# The guest


@pytest.mark.parametrize("needs", [COUNT, RATE, set(Need)])
@pytest.mark.parametrize("make", [SnnGuest, JellyGuest])
def test_nothing_is_written_on_the_model(make, needs):
    net = make()
    view = model_view(net, noise(T, N, 6))
    before = photograph(net)
    measure(view, labelled((6,)), needs, loss_fn=loss)
    assert_same(before, photograph(net))


def test_hooks_go_when_the_loss_fails():
    net = jelly()
    view = model_view(net, noise(T, N, 6))
    seen = []

    def failing(out, y):
        seen.append(hooks(net))
        raise KeyError("the loss broke")

    with pytest.raises(MeasureError, match="loss_fn failed on calibration batch 0: KeyError"):
        measure(view, labelled((6,)), set(Need), loss_fn=failing)
    assert seen[0] > 0
    assert hooks(net) == 0


def test_no_activation_outlives_its_batch():
    """What lives is counted each time a batch is asked for: it must not grow with the batches seen."""
    net = nn.Sequential(nn.Linear(6, 5), snntorch.Leaky(beta=0.9, init_hidden=True), nn.Linear(5, 3))
    view = model_view(net, noise(T, N, 6), forward=unroll)
    assert view.graph  # made now: it takes a pass of its own
    seen, alive = [], []

    def note(module, args, output):
        seen.extend([weakref.ref(args[0]), weakref.ref(output)])

    def batches():
        for _ in range(4):
            gc.collect()
            alive.append(sum(reference() is not None for reference in seen))
            yield spikes(T, N, 6), torch.tensor([0, 1])

    handles = [module.register_forward_hook(note) for module in net]
    measure(view, batches(), set(Need), loss_fn=loss)
    for handle in handles:
        handle.remove()
    assert len(seen) == 4 * T * 3 * 2
    assert alive[1] == alive[2] == alive[3] <= T * 3 * 2


def test_a_frozen_layer_is_passed_over_and_all_frozen_is_an_error():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    view = model_view(net, torch.rand(2, 3), spiking=False)
    batch = [(torch.rand(2, 3), torch.tensor([0, 1]))]
    net[0].weight.requires_grad_(False)
    stats = measure(view, batch, {Need.WEIGHT_GRADIENT}, loss_fn=nn.functional.cross_entropy)
    assert stats["1"].weight_gradient.shape == (2, 4)
    with pytest.raises(NotMeasured, match="its weight is frozen; set requires_grad"):
        _ = stats["0"].weight_gradient
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(MeasureError, match="all layers are frozen"):
        measure(view, batch, {Need.WEIGHT_GRADIENT}, loss_fn=nn.functional.cross_entropy)


def test_a_batch_without_samples_is_named():
    view = model_view(nn.Linear(3, 2), torch.rand(1, 3), spiking=False)
    with pytest.raises(EmptyCalibration, match=r"batch 1 holds no sample: its shape is \(0, 3\)"):
        measure(view, [torch.rand(2, 3), torch.rand(0, 3)], {Need.INPUT_COUNT})
