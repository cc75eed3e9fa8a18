"""A layer is a tree of arrays: names, maps, files, and how it looks in a debugger."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from transformer_np.attention import MultiHeadAttention, attention_forward
from transformer_np.layer import Layer, add, count_parameters, describe, load, map_arrays, named_arrays, save, with_arrays
from transformer_np.linear import Linear
from transformer_np.models.gpt import GPT


@dataclass(repr=False, eq=False)
class Pair(Layer):
    """Everything that a tree can hold."""

    first: Linear
    rest: list[Linear] = field(default_factory=list)
    offset: np.ndarray | None = None
    name: str = "pair"


def numbers(*shape, start=0.0):
    return start + np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


def pair(start=0.0, rest=2, offset=True, name="pair"):
    return Pair(Linear(numbers(2, 3, start=start), numbers(3, start=start)),
                [Linear(numbers(2, 2, start=start + index), None) for index in range(rest)],
                np.array(start) if offset else None, name)


def gpt(seed=0):
    return GPT.create(5, context=4, d_model=4, num_layers=2, num_heads=2, rng=np.random.default_rng(seed))


# ---------------------------------------------------------------------------------------------------- names and maps

def test_arrays_have_dotted_names_in_the_order_of_the_fields():
    assert list(named_arrays(pair())) == ["first.weight", "first.bias", "rest.0.weight", "rest.1.weight", "offset"]
    names = list(named_arrays(gpt()))
    assert names[:3] == ["embedding.weight", "positions.weight", "blocks.0.self_attention.norm.gain"]
    assert "blocks.1.self_attention.attention.query.weight" in names


def test_named_arrays_are_the_layers_own():
    layer = pair()
    assert named_arrays(layer)["rest.1.weight"] is layer.rest[1].weight


def test_a_layer_without_arrays_has_no_names():
    assert named_arrays(Pair(Linear(numbers(0, 0), None))) == {"first.weight": pytest.approx(numbers(0, 0))}
    assert count_parameters(Pair(Linear(numbers(0, 0), None))) == 0


def test_map_arrays_is_a_map_at_every_name_and_keeps_the_settings():
    a, b, c = pair(1.0, name="a"), pair(2.0, name="b"), pair(3.0)
    mapped = map_arrays(lambda x, y, z: x + 10 * y + 100 * z, a, b, c)
    assert mapped.name == "a"
    assert isinstance(mapped, Pair)
    for name, array in named_arrays(mapped).items():
        x, y, z = (named_arrays(layer)[name] for layer in (a, b, c))
        np.testing.assert_array_equal(array, x + 10 * y + 100 * z)
        assert isinstance(array, np.ndarray)  # also where it has no axes


def test_map_arrays_changes_no_argument():
    a = pair()
    before = {name: array.copy() for name, array in named_arrays(a).items()}
    map_arrays(lambda x: x + 1, a)
    add(a, a)
    for name, array in named_arrays(a).items():
        np.testing.assert_array_equal(array, before[name])


def test_add_is_the_sum_of_two_gradients():
    total = add(pair(1.0), pair(2.0))
    np.testing.assert_array_equal(total.rest[1].weight, numbers(2, 2, start=2.0) + numbers(2, 2, start=3.0))
    assert total.rest[1].bias is None


@pytest.mark.parametrize(("other", "message"), [
    (pair().first, r"^map_arrays: at Pair, expected a Pair, got a Linear"),
    (pair(rest=3), r"^map_arrays: at Pair.rest, expected a list of 2, got \[Linear\(.*\), Linear\(.*\), Linear\(.*\)\]"),
    (pair(rest=1), r"^map_arrays: at Pair.rest, expected a list of 2, got \[Linear\(.*\)\]"),
    (pair(offset=False), r"^map_arrays: at Pair.offset, expected float64\[\], got None"),
    (Pair(Linear(numbers(2, 4), numbers(3)), pair().rest, np.array(0.0)),
     r"^map_arrays: at Pair.first.weight, expected float64\[2, 3\], got float64\[2, 4\]"),
    (Pair(pair().first, [Linear(numbers(2, 2), None), Linear(numbers(2, 2), numbers(2))], np.array(0.0)),
     r"^map_arrays: at Pair.rest.1.bias, expected None, got float64\[2\]"),
])
def test_trees_that_do_not_match_raise(other, message):
    with pytest.raises(ValueError, match=message):
        map_arrays(np.add, pair(), other)


def test_parameters_are_counted_once():
    assert count_parameters(pair()) == 6 + 3 + 4 + 4 + 1


# ---------------------------------------------------------------------------------------------------- files

@pytest.mark.parametrize("original", [pair(0.5), gpt()], ids=["pair", "GPT"])
def test_what_is_saved_is_loaded_to_the_last_bit(tmp_path, original):
    save(original, tmp_path / "model.npz")
    blank = map_arrays(np.zeros_like, original)
    loaded = load(blank, tmp_path / "model.npz")
    assert repr(loaded) == repr(original)
    for name, array in named_arrays(original).items():
        np.testing.assert_array_equal(named_arrays(loaded)[name], array)
        assert named_arrays(loaded)[name].dtype == array.dtype
    assert all((array == 0).all() for array in named_arrays(blank).values())  # the layer that gave the structure is whole


def test_the_file_is_an_npz_under_dotted_names_that_numpy_reads(tmp_path):
    save(pair(), tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        assert sorted(file.files) == sorted(named_arrays(pair()))


def test_the_name_of_the_file_is_kept(tmp_path):
    save(pair(), str(tmp_path / "checkpoint"))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    load(pair(), str(tmp_path / "checkpoint"))


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    save(pair(1.0), path)

    def interrupted(file, **arrays):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(pair(2.0), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.npz"]
    np.testing.assert_array_equal(load(pair(), path).first.bias, pair(1.0).first.bias)


def damaged_files(whole):
    middle = len(whole) // 2
    return {"empty": b"", "cut off": whole[:middle], "text": b"not a file of arrays", "a page": b"<html></html>" * 100,
            "flipped": whole[:100] + bytes(255 - byte for byte in whole[100:200]) + whole[200:]}


@pytest.mark.parametrize("damage", ["empty", "cut off", "text", "a page", "flipped"])
def test_a_damaged_file_raises(tmp_path, damage):
    path = tmp_path / "model.npz"
    save(pair(), path)
    path.write_bytes(damaged_files(path.read_bytes())[damage])
    with pytest.raises(ValueError, match=r"model.npz: damaged, or not an .npz file"):
        load(pair(), path)


def test_a_single_array_or_a_pickle_raises(tmp_path):
    path = tmp_path / "model.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"model.npz: damaged, or not an .npz file"):
        load(pair(), path)
    with path.open("wb") as file:
        np.savez(file, weight=np.array([object()]))
    with pytest.raises(ValueError, match=r"model.npz: damaged, or not an .npz file"):
        load(pair(), path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model.npz"):
        load(pair(), tmp_path / "model.npz")


@pytest.mark.parametrize(("other", "message"), [
    (pair(rest=1), r"model.npz: not the arrays of a Pair: missing \['rest.1.weight'\], unexpected \[\]"),
    (pair(rest=3), r"model.npz: not the arrays of a Pair: missing \[\], unexpected \['rest.2.weight'\]"),
    (pair().first, r"model.npz: not the arrays of a Pair: missing \['first.bias', .*\], unexpected \['bias', 'weight'\]"),
    (Pair(Linear(numbers(3, 2), numbers(3)), pair().rest, np.array(0.0)),
     r"model.npz: first.weight has shape \[3, 2\], expected \[2, 3\]"),
])
def test_the_file_of_another_layer_raises(tmp_path, other, message):
    save(other, tmp_path / "model.npz")
    with pytest.raises(ValueError, match=message):
        load(pair(), tmp_path / "model.npz")


def test_with_arrays_names_its_source():
    with pytest.raises(ValueError, match=r"^my arrays: not the arrays of a Linear: missing \['bias'\], unexpected \[\]"):
        with_arrays(pair().first, {"weight": numbers(2, 3)}, source="my arrays")


# ---------------------------------------------------------------------------------------------------- in a debugger

def test_a_layer_shows_shapes_and_settings_and_no_numbers():
    assert repr(pair()) == ("Pair(first=Linear(weight=float64[2, 3], bias=float64[3]), "
                            "rest=[Linear(weight=float64[2, 2], bias=None), Linear(weight=float64[2, 2], bias=None)], "
                            "offset=float64[], name='pair')")
    layer = MultiHeadAttention.create(4, 2, rng=np.random.default_rng(0))
    assert repr(layer).startswith("MultiHeadAttention(query=Linear(weight=float32[4, 4], bias=float32[4]), key=")
    assert repr(layer).endswith("num_heads=2, dropout=0.0)")


def test_a_cache_shows_shapes_and_cannot_be_reassigned():
    _, cache = attention_forward(numbers(2, 4), numbers(3, 4), numbers(3, 5))
    assert repr(cache) == ("AttentionCache(q=float64[2, 4], k=float64[3, 4], v=float64[3, 5], weights=float64[2, 3], "
                           "keep=None, scale=0.5)")
    with pytest.raises(AttributeError):
        cache.q = numbers(2, 4)


def test_a_long_list_is_shown_by_its_first_items():
    assert describe([numbers(2)] * 40) == "[float64[2], float64[2], float64[2], and 37 more]"
    assert describe([numbers(2)] * 3) == "[float64[2], float64[2], float64[2]]"
