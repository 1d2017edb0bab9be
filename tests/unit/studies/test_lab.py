"""What trials stand on: draws of training samples that depend on the seed and their use alone, and networks as they began."""

import torch

from spikeprune.recipes.splits import Part, Splits
from spikeprune.recipes.train import make_net
from spikeprune.studies.lab import NORMS, Lab


def rows_of(part):
    return {tuple(x.flatten().tolist()) for x in part.x}


def test_samples_are_drawn_by_their_use(lab):
    first, again, other = lab.some(20, "tune-on", 0), lab.some(20, "tune-on", 0), lab.some(20, "tune-on", 1)
    assert len(first.y) == 20
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)
    assert len(rows_of(first)) == len(rows_of(lab.some(400, "all"))) - 380  # without replacement
    assert rows_of(first) <= rows_of(lab.splits.train)


def test_no_more_samples_are_drawn_than_there_are(lab):
    assert len(lab.some(10_000, "tune-on").y) == len(lab.splits.train.y) == 400


def test_samples_keep_the_augmentation_of_training(lab):
    class Augmented(Lab):
        def __init__(self, of):
            self.recipe, self._run = of.recipe, of._run

        @property
        def splits(self):
            train = lab.splits.train
            return Splits(Part(train.x, train.y, ("flip",)), lab.splits.validation, lab.splits.test)

    assert Augmented(lab).some(3, "x").augment == ("flip",)


def test_the_untrained_network_is_the_one_that_training_began_with(lab):
    untrained, trained = lab.untrained(), lab.copy()
    net = make_net(lab.recipe, lab.splits.train.x[:2], 10).state_dict()
    found = untrained.net.state_dict()
    assert all(torch.equal(value.cpu(), net[name]) for name, value in found.items())
    assert not torch.equal(trained.view.layers[0].weight, untrained.view.layers[0].weight)
    assert lab.untrained().net is not untrained.net


def test_norms_are_measured_on_the_same_training_batches_every_time(lab):
    assert len(lab.for_norms) == NORMS
    assert {len(y) for _, y in lab.for_norms} == {lab.recipe.prune.batch}
    assert lab.for_norms is lab.for_norms
    drawn = {tuple(x.flatten().tolist()) for batch, _ in lab.for_norms for x in batch}
    assert drawn <= rows_of(lab.splits.train)


def test_an_epoch_has_the_steps_of_the_dense_training(lab):
    assert lab.steps == 13  # 400 samples in batches of 32
