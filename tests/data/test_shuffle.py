"""The order of the examples: exact epochs, whatever the size of the batches."""

import numpy as np
import pytest

from jaxgen.data.shuffle import _permutation, indices
from jaxgen.errors import UserError


def taken(seed: int, counts, num: int, stream: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The ids and epochs of batches of those sizes, one after another."""
    firsts = np.cumsum([0, *counts[:-1]])
    pairs = zip(firsts, counts, strict=True)
    batches = [indices(seed, int(first), count, num, stream) for first, count in pairs]
    ids, epochs = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    assert ids.dtype == epochs.dtype == np.int32
    return ids, epochs


@pytest.mark.parametrize("batch_size", [1, 7, 10, 23])
def test_every_epoch_holds_every_example_once(batch_size):
    num, epochs = 23, 10
    ids, epoch = taken(3, [batch_size] * (num * epochs // batch_size), num)
    np.testing.assert_array_equal(epoch, np.arange(len(ids)) // num)
    orders = [ids[epoch == e].tolist() for e in range(len(ids) // num)]
    assert all(sorted(order) == list(range(num)) for order in orders)
    assert len(set(map(tuple, orders))) == len(orders), "the order must change with the epoch"


@pytest.mark.parametrize("counts", [[8] * 9 + [4] * 17 + [2] * 11, [23, 1, 22, 24, 3, 65]])
def test_epochs_stay_exact_when_the_batch_changes_on_the_way(counts):
    num = 23
    ids, epoch = taken(3, counts, num)
    whole = len(ids) // num
    assert whole >= 5
    for e in range(whole):
        assert sorted(ids[epoch == e]) == list(range(num))
        np.testing.assert_array_equal(ids[epoch == e], ids[e * num : (e + 1) * num])
    # The order is that of any other division into batches.
    np.testing.assert_array_equal(ids, taken(3, [1] * len(ids), num)[0])


def test_a_count_may_span_several_epochs():
    num = 5
    ids, epoch = indices(1, 3, 24, num)  # the end of epoch 0, four whole ones, and two of epoch 5
    np.testing.assert_array_equal(epoch, (3 + np.arange(24)) // num)
    assert all(sorted(ids[epoch == e]) == list(range(num)) for e in range(1, 5))
    one_by_one = [indices(1, 3 + i, 1, num)[0][0] for i in range(24)]
    np.testing.assert_array_equal(ids, one_by_one)
    assert set(indices(1, 0, 3 * 1, 1)[0]) == {0}, "one example makes an epoch"


def test_streams_are_exact_and_independent():
    num, epochs = 97, 60
    orders = [taken(4, [num] * epochs, num, stream)[0].reshape(epochs, num) for stream in range(3)]
    for order in orders:
        assert (np.sort(order) == np.arange(num)).all()
    # A permutation agrees with an independent one in a place with probability 1 / num: 60 in all
    # are expected, and the number is about Poisson.
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        agree = int((orders[a] == orders[b]).sum())
        assert abs(agree - epochs) < 5 * epochs**0.5
        ranks = [np.argsort(orders[i], 1).ravel() for i in (a, b)]
        assert abs(np.corrcoef(*ranks)[0, 1]) < 5 / (num * epochs) ** 0.5
    # Streams of different lengths, as of two folders, each have epochs of their own.
    ids, epoch = indices(4, 0, 2 * num, num // 2, 1)
    assert epoch.max() == 4 and sorted(ids[epoch == 2]) == list(range(num // 2))


def test_batches_are_a_function_of_seed_and_example():
    steps = [5, 2, 900, 2, 3, 5]  # any order, as after a resume; 10 of 23 straddles epochs
    first = {step: indices(1, 10 * step, 10, 23) for step in steps}
    _permutation.cache_clear()
    for step in reversed(steps):
        np.testing.assert_array_equal(indices(1, 10 * step, 10, 23), first[step])
    assert set(first[2][1]) == {0, 1}, "step 2 straddles"
    assert not np.array_equal(indices(1, 50, 10, 23)[0], indices(2, 50, 10, 23)[0])
    # Regrouping: the stream of examples does not depend on the batch size.
    np.testing.assert_array_equal(taken(1, [10] * 6, 23)[0], taken(1, [20] * 3, 23)[0])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((-1, 0, 2, 23), "--seed must not be negative; got -1"),
        ((0, 0, 0, 23), "count and num_examples >= 1; got 0, 0, 0, 23"),
        ((0, -1, 2, 23), "first_example and stream >= 0"),
        ((0, 0, 2, 0), "num_examples >= 1"),
        ((0, 0, 2, 23, -1), "stream >= 0"),
    ],
)
def test_order_errors(arguments, told):
    with pytest.raises(UserError, match=told):
        indices(*arguments)
