import pytest
import torch
from torch import nn

from spikeprune import Masks
from spikeprune.errors import MethodError, SparsityError
from spikeprune.kernel.allocate import erdos_renyi, lamp, uniform
from spikeprune.kernel.patterns import Channel
from spikeprune.methods import Magnitude, Random
from spikeprune.view.layer import Layer, Layout

YES, NO = True, False


def layer(name, rows):
    module = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(rows))
    return Layer(name, module, Layout.ONCE)


def two():
    return [layer("a", [[1.0, -2.0], [3.0, -4.0]]), layer("b", [[0.1, 0.2]])]


def rows(masks):
    return {name: mask.tolist() for name, mask in masks.items()}


def test_magnitude_ranks_all_layers_together():
    assert rows(Magnitude()(two(), {}, Masks({}), 0.34)) == {"a": [[NO, YES], [YES, YES]], "b": [[NO, YES]]}


def test_magnitude_under_lamp_is_the_papers_example():
    assert rows(Magnitude(allocation=lamp)(two(), {}, Masks({}), 0.5)) == {"a": [[NO, NO], [YES, YES]], "b": [[NO, YES]]}


def test_magnitude_uniform():
    assert Magnitude(allocation=uniform)(two(), {}, Masks({}), 0.5).kept == {"a": 2, "b": 1}


def test_magnitude_by_column():
    masks = Magnitude(pattern=Channel(dim=1))(two(), {}, Masks({}), 0.5)
    assert rows(masks) == {"a": [[NO, YES], [NO, YES]], "b": [[NO, YES]]}


def test_equal_weights_fall_from_the_end():
    assert rows(Magnitude()([layer("a", [[1.0, -1.0, 1.0]])], {}, Masks({}), 0.34)) == {"a": [[YES, YES, NO]]}


@pytest.mark.parametrize("method", [Magnitude(pattern=Channel(dim=1)), Random(pattern=Channel(dim=1))])
def test_a_column_with_a_dead_weight_is_never_kept(method):
    force = Masks({"a": torch.tensor([[YES, YES, YES], [YES, NO, YES]])})
    one = [layer("a", [[1.0, 9.0, 2.0], [1.0, 9.0, 2.0]])]
    assert not bool(method(one, {}, force, 0.3)["a"][:, 1].any())
    with pytest.raises(SparsityError, match="left only 2 alive"):
        method(one, {}, force, 0.0)


def test_erdos_renyi_has_no_columns():
    with pytest.raises(SparsityError, match=r"Use it with the pattern Unstructured\(\)"):
        Magnitude(allocation=erdos_renyi, pattern=Channel(dim=1))(two(), {}, Masks({}), 0.5)


def test_random_is_fixed_by_its_seed_and_leaves_the_global_one():
    wide = [layer("a", [[1.0] * 20] * 5)]
    before = torch.get_rng_state()
    masks = Random(seed=3)(wide, {}, Masks({}), 0.5)
    assert torch.equal(torch.get_rng_state(), before)
    assert masks == Random(seed=3)(wide, {}, Masks({}), 0.5)
    assert masks != Random(seed=4)(wide, {}, Masks({}), 0.5)
    assert masks.kept == {"a": 50}


def test_random_does_not_look_at_the_weights():
    small, large = [layer("a", [[1.0] * 20] * 5)], [layer("a", [[float(i)] * 20 for i in range(5)])]
    assert Random()(small, {}, Masks({}), 0.5) == Random()(large, {}, Masks({}), 0.5)


def test_random_spreads_over_the_layers_by_chance():
    pair = [layer("a", [[1.0] * 100] * 100), layer("b", [[9.0] * 100] * 100)]
    kept = Random()(pair, {}, Masks({}), 0.9).kept
    assert sum(kept.values()) == 2000
    assert 850 < kept["a"] < 1150


@pytest.mark.parametrize("kind", [Magnitude, Random])
def test_names_in_place_of_parts_are_refused(kind):
    with pytest.raises(MethodError, match=r"allocation is 'lamp', but must be a function, such as allocate\.lamp"):
        kind(allocation="lamp")
    with pytest.raises(MethodError, match=r"pattern is 'column', but must be a pattern, such as patterns\.Channel\(\)"):
        kind(pattern="column")
    with pytest.raises(MethodError, match="but must be a pattern"):
        kind(pattern=Channel)
