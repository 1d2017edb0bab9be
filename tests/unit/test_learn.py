"""Masks that are learned along with the weights: what the model holds when, resuming, and what is refused."""

import itertools

import pytest
import snntorch as snn
import torch
from torch import nn

from spikeprune import hold, learn_masks, methods, model_view, recalibrate
from spikeprune.errors import MaskMismatch, MethodError, NonFinite, NoPrunableLayers, SparsityError, UnsupportedOptimizer
from spikeprune.kernel.blocks import fullest

LOGITS = methods.SpikeNM(2, 4, distill=0, temperature=(1.0, 0.1), dense=True)
LEARNERS = [LOGITS, methods.SRSTE(2, 4), methods.SpikeNM(1, 8, distill=0, dense=False)]


def net_of(*sizes, seed=0):
    torch.manual_seed(seed)
    parts = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def setting(*sizes, seed=0, lr=0.1):
    net = net_of(*(sizes or (8, 16, 16, 4)), seed=seed)
    view = model_view(net, torch.rand(3, net[0].in_features), spiking=False)
    return net, view, torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)


def batch(inputs=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(16, inputs, generator=generator), torch.randint(0, 4, (16,), generator=generator)


def step(net, optimizer, seed=0):
    x, y = batch(seed=seed)
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()


@pytest.mark.parametrize("method", LEARNERS)
def test_no_block_ever_has_more_than_n_alive(method):
    net, view, optimizer = setting()
    pattern = method.pattern
    with learn_masks(optimizer, view, method, 12) as learning:
        for i in range(12):
            step(net, optimizer, i)
            assert fullest(net[2].weight != 0, pattern.m) == pattern.n
            if i == 5:
                net.eval()
                net(batch()[0])
                assert fullest(net[2].weight != 0, pattern.m) == pattern.n
                net.train()
    assert fullest(net[2].weight != 0, pattern.m) == pattern.n
    assert learning.masks.density == pattern.n / pattern.m
    recalibrate(view, [batch()[0]])
    with hold(optimizer, view, learning.masks):
        for i in range(3):
            step(net, optimizer, i)
            assert torch.equal(net[2].weight != 0, learning.masks["2"])


def test_masked_weights_are_kept_beside_and_come_back():
    net, view, optimizer = setting(lr=1e-9)  # so that weights stay where they are
    before = net[2].weight.detach().clone()
    seen = torch.zeros_like(before, dtype=torch.bool)
    with learn_masks(optimizer, view, LOGITS, 30) as learning:
        for i in range(30):
            step(net, optimizer, i)
            alive = net[2].weight != 0
            assert torch.allclose(net[2].weight[alive], before[alive])
            seen |= alive
        assert torch.allclose(learning.weights["2"], before)
    assert bool(seen.all())


def test_masked_weights_train_straight_through_or_rest():
    for dense in (True, False):
        net, view, optimizer = setting()
        with learn_masks(optimizer, view, methods.SpikeNM(2, 4, distill=0, dense=dense), 1) as learning:
            alive = net[2].weight != 0
            before = learning.weights["2"].clone()
            step(net, optimizer)
            moved = learning.weights["2"] != before
        assert bool(moved[alive].any())
        assert bool(moved[~alive].any()) is dense


def test_the_gradient_is_taken_at_the_masked_weight():
    net, view, optimizer = setting()
    twin = net_of(8, 16, 16, 4)
    with learn_masks(optimizer, view, LOGITS, 4) as learning:
        twin.load_state_dict(net.state_dict())
        before = {name: weight.clone() for name, weight in learning.weights.items()}
        x, y = batch()
        grad = torch.autograd.grad(nn.functional.cross_entropy(twin(x), y), twin[2].weight)[0]
        step(net, optimizer)
        assert torch.allclose(learning.weights["2"], before["2"] - 0.1 * grad, atol=1e-7)


def test_masks_change_only_after_a_step_so_all_timesteps_share_one():
    torch.manual_seed(0)
    neurons = [snn.Leaky(beta=0.5, init_hidden=True) for _ in range(3)]
    net = nn.Sequential(nn.Linear(8, 16), neurons[0], nn.Linear(16, 16), neurons[1], nn.Linear(16, 4), neurons[2])
    seen = []

    def over_time(net, x):
        for neuron in neurons:
            neuron.reset_mem()
        out = []
        for _ in range(4):
            out.append(net(x))
            seen.append(net[2].weight.detach().clone())
        return torch.stack(out).sum(0)

    view = model_view(net, batch()[0], forward=over_time)
    optimizer = torch.optim.Adam(net.parameters())
    with learn_masks(optimizer, view, LOGITS, 2):
        for _ in range(2):
            seen.clear()
            optimizer.zero_grad()
            x, y = batch()
            nn.functional.cross_entropy(view(x), y).backward()
            assert all(torch.equal(weight, seen[0]) for weight in seen)
            first = seen[0] != 0
            optimizer.step()
            assert not torch.equal(net[2].weight != 0, first)  # the next draw is another


def test_evaluation_has_the_best_masks_and_training_goes_on_with_the_draw():
    net, view, optimizer = setting()
    with learn_masks(optimizer, view, LOGITS, 50) as learning:
        step(net, optimizer)
        drawn = net[2].weight.detach().clone()
        net.eval()
        net(batch()[0])
        assert torch.equal(net[2].weight != 0, learning.masks["2"])
        with view.undisturbed():
            first = view(batch()[0])
            assert torch.equal(first, view(batch()[0]))
        net.train()
        net(batch()[0])
        assert torch.equal(net[2].weight, drawn)
    assert not torch.equal(drawn != 0, learning.masks["2"])


@pytest.mark.parametrize("method", LEARNERS)
def test_a_resumed_search_is_the_unbroken_one(method):
    def run(stop):
        net, view, optimizer = setting()
        learning = learn_masks(optimizer, view, method, 10)
        for i in range(10):
            if i == stop:
                state = {
                    "net": {k: v.clone() for k, v in net.state_dict().items()},
                    "optimizer": optimizer.state_dict(),
                    "learning": learning.state_dict(),
                }
                net, view, optimizer = setting(seed=1)
                learning = learn_masks(optimizer, view, method, 10)
                net.load_state_dict(state["net"])
                optimizer.load_state_dict(state["optimizer"])
                learning.load_state_dict(state["learning"])
                assert learning.steps == 5
                assert fullest(net[2].weight != 0, method.pattern.m) == method.pattern.n
            step(net, optimizer, i)
        learning.release()
        return net.state_dict(), learning.masks

    whole, masks = run(None)
    again, resumed = run(5)
    assert masks == resumed
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_state_of_another_pattern_or_net_is_refused():
    _, view, optimizer = setting()
    state = learn_masks(optimizer, view, LOGITS, 10).state_dict()
    with pytest.raises(MaskMismatch, match="of a search for 2:4, but this one is for 1:4"):
        learn_masks(optimizer, view, methods.SpikeNM(1, 4, distill=0), 10).load_state_dict(state)
    _, other, another = setting(8, 32, 16, 4)
    with pytest.raises(MaskMismatch, match=r"the state is of layers \{'2': \(16, 16\)\}"):
        learn_masks(another, other, LOGITS, 10).load_state_dict(state)
    with pytest.raises(MaskMismatch, match="lacks learner, pattern, steps, weights"):
        learn_masks(optimizer, view, LOGITS, 10).load_state_dict({})
    with pytest.raises(MaskMismatch, match="no state of SpikeNM"):
        learn_masks(optimizer, view, LOGITS, 10).load_state_dict({**state, "learner": {}})


def test_nothing_is_left_on_model_or_optimizer():
    net, view, optimizer = setting()
    with learn_masks(optimizer, view, LOGITS, 3):
        step(net, optimizer)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not net[2]._forward_pre_hooks
    before = (net[2].weight != 0).sum()
    step(net, optimizer)
    assert (net[2].weight != 0).sum() > before  # nobody holds it now


def test_a_closure_makes_the_gradients():
    results = []
    for closed in (False, True):
        net, view, optimizer = setting()
        x, y = batch()

        def closure(net=net, optimizer=optimizer, x=x, y=y):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            return loss

        with learn_masks(optimizer, view, LOGITS, 3):
            for _ in range(3):
                if closed:
                    optimizer.step(closure)
                else:
                    closure()
                    optimizer.step()
        results.append(net[2].weight.detach().clone())
    assert torch.equal(*results)


def test_gradients_accumulate_over_batches():
    net, view, optimizer = setting()
    with learn_masks(optimizer, view, LOGITS, 3):
        drawn = net[2].weight.detach().clone()
        for i in range(2):
            x, y = batch(seed=i)
            nn.functional.cross_entropy(net(x), y).backward()
            assert torch.equal(net[2].weight, drawn)
        optimizer.step()
        assert not torch.equal(net[2].weight, drawn)


def test_a_gradient_that_is_no_number_is_refused_before_the_step():
    net, view, optimizer = setting()
    with learn_masks(optimizer, view, LOGITS, 3) as learning:
        before, logits = learning.weights["2"].clone(), learning.learner.logits["2"].clone()
        x, y = batch()
        nn.functional.cross_entropy(net(x), y).backward()
        net[2].weight.grad[0, 0] = torch.nan
        with pytest.raises(NonFinite, match=r"the gradient of '2' holds NaN .* weights and masks are unharmed"):
            optimizer.step()
        assert torch.equal(learning.weights["2"], before)
        assert torch.equal(learning.learner.logits["2"], logits)


def test_logits_gone_nan_are_refused_by_layer():
    net, view, optimizer = setting()
    with learn_masks(optimizer, view, LOGITS, 3) as learning:
        learning.learner.logits["2"][0, 0] = torch.nan
        with pytest.raises(NonFinite, match="1 of 256 logits of layer '2' are NaN"):
            step(net, optimizer)


def test_a_weight_that_is_no_number_is_refused():
    net, view, optimizer = setting()
    with torch.no_grad():
        net[2].weight[0, 0] = torch.inf
    with pytest.raises(NonFinite, match="1 of 256 weights of layer '2'"), learn_masks(optimizer, view, LOGITS, 3):
        pass


def test_what_cannot_be_learned_is_refused():
    _, view, optimizer = setting()
    refused = [
        (MethodError, "must be one that learns masks", {"method": methods.Magnitude()}),
        (MethodError, "must be one that learns masks", {"method": methods.SpikeNM}),
        (SparsityError, "steps is 0", {"steps": 0}),
        (SparsityError, "steps is 2.5", {"steps": 2.5}),
        (NoPrunableLayers, "none has inputs that 32 divides", {"method": methods.SpikeNM(2, 32, distill=0)}),
        (SparsityError, "fewer than the 32 of a block", {"method": methods.SpikeNM(2, 32, distill=0), "layers": "2"}),
    ]
    for error, words, changed in refused:
        asked = {"method": LOGITS, "steps": 3, **changed}
        with pytest.raises(error, match=words), learn_masks(optimizer, view, **asked):
            pass


def test_an_optimizer_that_cannot_serve_is_refused():
    net, view, _ = setting()
    foreign = torch.optim.SGD(net_of(8, 16, 16, 4).parameters(), lr=0.1)
    with pytest.raises(UnsupportedOptimizer, match="does not train the weight of 2"), learn_masks(foreign, view, LOGITS, 3):
        pass
    with pytest.raises(UnsupportedOptimizer), learn_masks(torch.optim.LBFGS(net.parameters()), view, LOGITS, 3):
        pass
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net[2].weight.requires_grad_(False)
    with pytest.raises(UnsupportedOptimizer, match="unfreeze"), learn_masks(optimizer, view, LOGITS, 3):
        pass


def test_named_layers_may_have_a_last_block_that_is_filled_up():
    net, view, optimizer = setting(8, 10, 10, 4)
    with learn_masks(optimizer, view, LOGITS, 5, layers="2") as learning:
        for i in range(5):
            step(net, optimizer, i)
            assert fullest(net[2].weight != 0, 4) == 2
    assert learning.masks["2"].sum() == 10 * (2 + 2 + 2)


def test_a_depthwise_convolution_is_refused():
    net = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8, 2))
    view = model_view(net, torch.rand(2, 4, 3, 3), spiking=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(SparsityError, match="1 inputs in a row"), learn_masks(optimizer, view, LOGITS, 3, layers="1"):
        pass


def scaled_run(method, fused, *, scaled, overflow=None):
    net, view, _ = setting()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
    with learn_masks(optimizer, view, method, 6) as learning:
        for i in range(6):
            x, y = batch(seed=i)
            optimizer.zero_grad()
            factor = torch.inf if scaled and i == overflow else 1.0
            scaler.scale(factor * nn.functional.cross_entropy(net(x), y)).backward()
            if scaled or i != overflow:
                scaler.step(optimizer)
                scaler.update()
        return learning.weights["2"].clone(), learning.masks, learning.learner.state_dict().get("logits", {})


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("method", [*LEARNERS, methods.SRSTE(2, 4, decay=0.5)])
def test_scaled_gradients_teach_the_same(method, fused):
    plain, scaled = (scaled_run(method, fused, scaled=scaled) for scaled in (False, True))
    assert torch.allclose(plain[0], scaled[0], atol=1e-6)
    assert plain[1] == scaled[1]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skips_teaches_nothing(fused):
    weights, _, logits = scaled_run(LOGITS, fused, scaled=True, overflow=3)
    assert bool(torch.isfinite(weights).all())
    assert bool(torch.isfinite(logits["2"]).all())
    if not fused:  # a fused step is taken, though it changes nothing, so that the next draw is another
        assert torch.allclose(weights, scaled_run(LOGITS, fused, scaled=False, overflow=3)[0], atol=1e-6)


def test_under_autocast_logits_stay_float32():
    net, view, optimizer = setting()
    with learn_masks(optimizer, view, LOGITS, 3) as learning:
        before = learning.learner.logits["2"].clone()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step(net, optimizer)
        after = learning.learner.logits["2"]
        assert after.dtype == torch.float32
        assert not torch.equal(before, after)


def test_credits_are_measured_every_few_steps_on_batches_in_turn():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 16),
        snn.Leaky(beta=0.5, init_hidden=True),
        nn.Linear(16, 16),
        snn.Leaky(beta=0.5, init_hidden=True),
        nn.Linear(16, 4),
    )
    view = model_view(net, batch()[0], forward=lambda net, x: sum(net(3 * x) for _ in range(3)))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    asked = []

    def loss(out, y):
        asked.append(y)
        return nn.functional.cross_entropy(out, y)

    batches = [batch(seed=10), batch(seed=11)]
    with learn_masks(optimizer, view, methods.SpikeNM(2, 4, every=2), 10, calibration=iter(batches), loss_fn=loss) as learning:
        for i in range(6):
            assert ("2" in learning.learner.credits) == (i >= 2)
            optimizer.zero_grad()
            x, y = batch(seed=i)
            nn.functional.cross_entropy(view(x), y).backward()
            optimizer.step()
            assert fullest(net[2].weight != 0, 4) == 2
    assert [y.tolist() for y in asked] == [batches[i][1].tolist() for i in (0, 1, 0)]
    assert float(learning.learner.credits["2"].float().max()) > 0


def test_distillation_without_batches_or_loss_is_refused():
    _, view, optimizer = setting()
    for given in ({}, {"calibration": [batch()]}, {"loss_fn": nn.functional.cross_entropy}):
        with (
            pytest.raises(MethodError, match="measures eligibility while it learns: pass"),
            learn_masks(optimizer, view, methods.SpikeNM(2, 4), 3, **given),
        ):
            pass


def test_what_someone_writes_on_a_living_weight_is_taken_over():
    net, view, optimizer = setting()
    with learn_masks(optimizer, view, LOGITS, 3) as learning:
        both = (net[2].weight != 0) & learning.masks["2"]
        place = tuple(both.nonzero()[0].tolist())
        with torch.no_grad():
            net[2].weight[place] = 7.0
        net.eval()
        net(batch()[0])
        assert net[2].weight[place] == 7.0
        assert learning.weights["2"][place] == 7.0
