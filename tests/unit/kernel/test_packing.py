"""Packing of N:M weights: the layout bit by bit, and back without a bit lost."""

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeprune.errors import SparsityError
from spikeprune.kernel.blocks import NM, blocks, fullest
from spikeprune.kernel.packing import fault, index_bits, pack, pack_bits, slots, unpack, unpack_bits

SHAPES = st.sampled_from([(3, 8), (2, 7), (1, 33), (3, 8, 3, 3), (2, 9, 2), (2, 7, 1, 2, 3)])
PATTERNS = st.integers(1, 7).flatmap(lambda m: st.builds(NM, st.integers(1, m), st.just(m)))
WHOLE = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


def pruned(shape, pattern, seed=0, dtype=torch.float32, share=0.9):
    """Draw a weight, what lives of it, and fewer than n in some blocks; the weight is zero elsewhere."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=draw)
    alive = pattern.select(weight.abs(), pattern.count(weight)) & (torch.rand(shape, generator=draw) < share)
    return (weight * alive).to(dtype), alive


def same_bits(one, other):
    return one.dtype == other.dtype and torch.equal(one.view(WHOLE[one.dtype]), other.view(WHOLE[other.dtype]))


def by_loops(weight, alive, pattern):
    """Values and bits the slow way."""
    values, bits = [], []
    out, inputs, *kernel = weight.shape
    for row in itertools.product(range(out), *map(range, kernel)):
        w, lives = (x[(row[0], slice(None), *row[1:])].tolist() for x in (weight, alive))
        for start in range(0, inputs, pattern.m):
            living = [i for i in range(pattern.m) if start + i < inputs and lives[start + i]]
            dead = [i for i in range(pattern.m) if i not in living]
            for i in sorted((living + dead)[: pattern.n]):
                values.append(w[start + i] if i in living else 0.0)
                bits += [i >> b & 1 for b in range(index_bits(pattern.m))]
    packed = [sum(bit << b for b, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8)]
    return values, packed


@given(SHAPES, PATTERNS, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_layout_is_that_of_loops(shape, pattern, seed):
    weight, alive = pruned(shape, pattern, seed)
    values, packed = pack(weight, alive, pattern)
    expected, octets = by_loops(weight, alive, pattern)
    assert values.flatten().tolist() == expected
    assert packed.tolist() == octets
    assert values.shape == slots(weight.shape, pattern)


@given(SHAPES, PATTERNS, st.integers(0, 99), st.sampled_from(list(WHOLE)), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=80, deadline=None)
def test_there_and_back(shape, pattern, seed, dtype, share):
    weight, alive = pruned(shape, pattern, seed, dtype, share)
    values, packed = pack(weight, alive, pattern)
    assert values.dtype == dtype
    assert fault(values, packed, weight.shape, pattern) is None
    back = unpack(values, packed, weight.shape, pattern.m)
    assert same_bits(back, weight + 0.0)  # -0.0 + 0.0 is +0.0
    assert fullest(back != 0, pattern.m) <= pattern.n
    assert back.is_contiguous()


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (5, 13)])
def test_blocks_as_large_as_hardware_has_them(n, m):
    pattern = NM(n, m)
    weight, alive = pruned((4, 2 * m + 1, 3), pattern)
    values, packed = pack(weight, alive, pattern)
    assert len(packed) == -(-4 * 3 * 3 * n * index_bits(m) // 8)
    assert torch.equal(unpack(values, packed, weight.shape, m), weight)


def test_a_living_weight_keeps_every_bit_and_a_dead_one_is_plus_zero():
    # A signalling NaN, a quiet one with a payload, both infinities, the least number, and a living -0.0.
    whole = torch.tensor(
        [[0x7F800001, 0, -0x00300001, 0, 0x7F800000, -0x00800000, 0, 0, 1, 0, 0, -0x80000000]], dtype=torch.int32
    )
    weight = whole.view(torch.float32)
    alive = torch.tensor([[1, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 1]], dtype=torch.bool)
    back = unpack(*pack(weight, alive, NM(2, 4)), weight.shape, 4)
    assert torch.equal(back.view(torch.int32), whole)
    dead = torch.tensor([[-0.0, -0.0, 2.0, -0.0]])
    values, packed = pack(dead, dead != 0, NM(2, 4))
    assert not bool(values.signbit().any())
    assert not bool(unpack(values, packed, dead.shape, 4).signbit().any())


def test_by_hand_at_each_kernel_position():
    weight = torch.zeros(1, 5, 2)
    weight[0, 1, 0], weight[0, 3, 0], weight[0, 4, 0], weight[0, 2, 1] = 1.0, 2.0, 3.0, 4.0
    values, packed = pack(weight, weight != 0, NM(2, 4))
    # Position 0: channels 1 and 3; 4 alone, and the slot left over. Position 1: 0 (left over) and 2; none of the last.
    assert values.tolist() == [[[[1, 2], [3, 0]], [[0, 4], [0, 0]]]]
    assert unpack_bits(packed, 2, 8).tolist() == [1, 3, 0, 1, 0, 2, 0, 1]
    assert packed.tolist() == [0b01_00_11_01, 0b01_00_10_00]


def test_bits_by_hand():
    assert pack_bits(torch.tensor([1, 0, 1, 1, 0, 0, 0, 1, 1]), 1).tolist() == [0b10001101, 1]
    assert pack_bits(torch.tensor([5, 2, 7]), 3).tolist() == [0b11_010_101, 0b1]
    assert pack_bits(torch.tensor([9, 4]), 4).tolist() == [0b0100_1001]
    assert pack_bits(torch.tensor([31, 1]), 5).tolist() == [0b001_11111, 0]
    assert pack_bits(torch.tensor([0, 0, 0]), 0).tolist() == []
    assert unpack_bits(torch.empty(0, dtype=torch.uint8), 0, 3).tolist() == [0, 0, 0]


@given(st.integers(0, 8).flatmap(lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, (1 << bits) - 1), min_size=1))))
@settings(deadline=None)
def test_numbers_and_back(bits_and_numbers):
    bits, numbers = bits_and_numbers
    packed = pack_bits(torch.tensor(numbers), bits)
    assert len(packed) == -(-bits * len(numbers) // 8)
    assert unpack_bits(packed, bits, len(numbers)).tolist() == numbers


def test_two_of_four_are_the_indices_that_torch_gives_the_hardware():
    from torch.sparse import _semi_structured_conversions as conversions

    pattern, weight = NM(2, 4), torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight = weight * pattern.select(weight.float().abs(), 1024)
    values, packed = pack(weight, weight != 0, pattern)
    theirs, swizzled = conversions.sparse_semi_structured_from_dense_cutlass(weight)
    order = conversions._calculate_meta_reordering_scatter_offsets(32, 4, torch.int16, "cpu")
    assert torch.equal(theirs, values.view(32, 32))
    assert torch.equal(swizzled.flatten()[order], packed.view(torch.int16))


@pytest.mark.parametrize("pattern", [NM(1, 4), NM(2, 4)])
def test_a_block_that_is_too_full_is_refused(pattern):
    weight = torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    crowded = 2 if pattern.n == 1 else 1
    with pytest.raises(
        SparsityError, match=f"{crowded} of 4 blocks of 4 weights have more than {pattern.n} alive; the fullest has 3"
    ):
        pack(weight, weight != 0, pattern)
    with pytest.raises(SparsityError, match="fewer than the 32 of a block"):
        pack(weight, weight != 0, NM(4, 32))


GOOD = (torch.ones(2, 2, 2), torch.tensor([0x44, 0x44], dtype=torch.uint8), torch.Size([2, 6]), NM(2, 4))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({0: torch.ones(2, 2, 3)}, r"the values are torch.float32 of shape \(2, 2, 3\), not floats of shape \(2, 2, 2\)"),
        ({0: torch.ones(2, 2, 2).int()}, "the values are torch.int32"),
        ({1: torch.tensor([0x44], dtype=torch.uint8)}, r"of shape \(1,\), not torch.uint8 of shape \(2,\)"),
        ({1: torch.tensor([0x44, 0x44])}, "the indices are torch.int64"),
        ({1: torch.tensor([0x45, 0x44], dtype=torch.uint8)}, "the indices of 1 of 4 blocks do not rise"),
        ({1: torch.tensor([0x44, 0x41], dtype=torch.uint8)}, "the indices of 1 of 4 blocks do not rise"),
        ({1: torch.tensor([0x84, 0xE4], dtype=torch.uint8)}, "3 values lie behind the last of 6 inputs"),
        ({2: torch.Size([2, 5])}, "2 values lie behind the last of 5 inputs"),
        ({2: torch.Size([2, 9])}, r"not floats of shape \(2, 3, 2\)"),
        ({2: torch.Size([2, 3])}, r"the shape \(2, 3\) is that of no weight with 4 or more inputs"),
        ({2: torch.Size([8])}, r"the shape \(8,\) is that of no weight"),
        ({2: torch.Size([-2, 6])}, r"the shape \(-2, 6\) is that of no weight"),
        ({2: torch.Size([2, 6, 1, 1, 1, 1])}, "is that of no weight"),
        (
            {1: torch.tensor([0x4C, 0x44], dtype=torch.uint8), 3: NM(2, 3)},
            "the indices of 1 of 4 blocks do not rise, or reach beyond 2",
        ),
        ({3: NM(1, 4)}, r"not floats of shape \(2, 2, 1\)"),
    ],
)
def test_what_is_no_packed_weight(change, told):
    assert fault(*GOOD) is None
    found = fault(*(change.get(i, part) for i, part in enumerate(GOOD)))
    assert re.search(told, found or "nothing")


def test_bits_behind_the_last_index_are_a_fault():
    weight = torch.tensor([[1.0, 0.0, 2.0, 0.0]])
    values, packed = pack(weight, weight != 0, NM(2, 4))
    assert fault(values, packed, weight.shape, NM(2, 4)) is None
    assert fault(values, packed | 16, weight.shape, NM(2, 4)) == "bits behind the last index are set"


def test_nothing_alive_and_all_alive():
    none = torch.zeros(2, 8)
    values, packed = pack(none, none != 0, NM(2, 4))
    assert (int(values.count_nonzero()), packed.tolist()) == (0, [0x44, 0x44])
    weight = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    for pattern in (NM(1, 1), NM(4, 4)):
        values, packed = pack(weight, weight != 0, pattern)
        assert torch.equal(unpack(values, packed, weight.shape, pattern.m), weight)
    assert blocks(weight, 4).numel() == values.numel()
