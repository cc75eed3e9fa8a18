"""Text: reading it, numbering its characters, cutting windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_np.errors import InputError
from transformer_np.training.text import CharacterVocabulary, consecutive_windows, read_text, sample_windows, split_text


def test_text_is_read_as_utf8_with_unix_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes("Größe\r\n€\n".encode())
    assert read_text(tmp_path / "a.txt") == "Größe\n€\n"


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is empty"), (b"abc\xff", "not UTF-8 at byte 3"), (None, "cannot be read .No such file"),
])
def test_a_text_that_cannot_be_used_is_named(content, message, tmp_path):
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"text file .*a\.txt: {message}"):
        read_text(path)


def test_a_folder_is_not_a_text(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path)


@given(st.text(min_size=1))
@settings(max_examples=50, deadline=None)
def test_decoding_undoes_encoding(text):
    vocabulary = CharacterVocabulary.from_text(text)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert vocabulary.size == len(set(text))
    assert ids.tolist() == [sorted(set(text)).index(character) for character in text]


def test_unknown_characters_are_named():
    with pytest.raises(InputError, match=r"not in the vocabulary of 3: '\\udcff', 'x', '€'|'x', '€', '\\udcff'"):
        CharacterVocabulary.from_text("abc").encode("ax€x\udcff")
    with pytest.raises(InputError, match="and 2 more"):
        CharacterVocabulary.from_text("z").encode("abcdefghijkl")


def test_an_empty_text_has_no_ids():
    assert CharacterVocabulary.from_text("a").encode("").shape == (0,)
    assert CharacterVocabulary.from_text("a").decode([]) == ""


@pytest.mark.parametrize("ids", [[-1], [3]])
def test_an_id_out_of_range_is_refused(ids):
    with pytest.raises(ValueError, match="expected 0 to 2"):
        CharacterVocabulary("abc").decode(ids)


@pytest.mark.parametrize("characters", ["", "ba", "aa"])
def test_a_vocabulary_out_of_order_is_refused(characters):
    with pytest.raises(ValueError, match="in order"):
        CharacterVocabulary(characters)


def test_the_split_keeps_every_character_in_order():
    assert split_text("0123456789") == ("012345678", "9")
    assert split_text("0123456789", 0.25) == ("0123456", "789")
    with pytest.raises(ValueError, match="validation 1"):
        split_text("abc", 1.0)


@given(st.integers(1, 6), st.integers(0, 4), st.integers(1, 5), st.integers(0, 10))
@settings(max_examples=30, deadline=None)
def test_targets_are_the_tokens_one_place_further_on(context, batch, spare, seed):
    ids = np.arange(100, 100 + context + spare)
    tokens, targets = sample_windows(ids, batch, context, np.random.default_rng(seed))
    assert tokens.shape == targets.shape == (batch, context)
    np.testing.assert_array_equal(targets, tokens + 1)
    np.testing.assert_array_equal(np.diff(tokens, axis=1), 1)


def test_every_place_is_drawn_and_none_beyond_the_end():
    tokens, targets = sample_windows(np.arange(10), 500, 7, np.random.default_rng(0))
    assert set(tokens[:, 0]) == {0, 1, 2}
    assert targets.max() == 9


def test_a_text_as_short_as_the_context_is_refused():
    with pytest.raises(ValueError, match="4 ids, expected more than the context, 4"):
        sample_windows(np.arange(4), 1, 4, np.random.default_rng(0))


@given(st.integers(0, 30), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_consecutive_windows_have_every_id_but_the_first_as_a_target_once(length, context):
    ids = np.arange(100, 100 + length)
    tokens, targets = consecutive_windows(ids, context)
    assert tokens.shape == targets.shape == (-(-max(length - 1, 0) // context), context)
    kept = targets != -100
    np.testing.assert_array_equal(targets[kept], ids[1:])
    np.testing.assert_array_equal(tokens[kept], ids[:-1])
    assert (tokens[~kept] == 0).all()
