"""Checkpoints: everything comes back bit for bit, and nothing but a checkpoint is taken for one."""

import io
from dataclasses import replace

import numpy as np
import pytest

from transformer_np.errors import InputError
from transformer_np.layer import named_arrays
from transformer_np.models.gpt import GPT
from transformer_np.training.checkpoint import read_checkpoint, resume, write_checkpoint
from transformer_np.training.loop import TrainingState
from transformer_np.training.optimizers import AdamW

SETTINGS = {"text": "9 characters", "steps": 5, "lr": 0.1}


def fresh_state(width=4, seed=0):
    rng = np.random.default_rng(seed)
    model = GPT.create(3, context=2, d_model=width, num_layers=1, num_heads=1, rng=rng)
    return TrainingState(model, AdamW().create_state(model), rng.bit_generator.state)


@pytest.fixture
def saved(tmp_path):
    """A state in the middle of a run, and the file it is in."""
    state = fresh_state(seed=7)
    _, optimizer_state = AdamW().step(state.model, state.model, state.optimizer, 0.1)
    state = replace(state, optimizer=optimizer_state, step=3, summed_loss=0.1 + 0.2, history=((2, 1 / 3, 1 / 7),))
    write_checkpoint(tmp_path / "c.npz", state, SETTINGS, "abc")
    return state, tmp_path / "c.npz"


def test_everything_comes_back_bit_for_bit(saved):
    state, path = saved
    back = resume(path, fresh_state(), SETTINGS)
    assert (back.step, back.rng, back.summed_loss, back.history) == (3, state.rng, 0.1 + 0.2, ((2, 1 / 3, 1 / 7),))
    assert back.optimizer.step == 1
    for name, array in named_arrays(state).items():
        assert named_arrays(back)[name].dtype == array.dtype
        np.testing.assert_array_equal(named_arrays(back)[name], array, err_msg=name)


def test_the_random_stream_goes_on_where_it_was(saved):
    state, path = saved
    streams = []
    for rng_state in (state.rng, resume(path, fresh_state(), SETTINGS).rng):
        rng = np.random.default_rng()
        rng.bit_generator.state = rng_state
        streams.append(rng.random(5).tolist())
    assert streams[0] == streams[1]


def test_settings_that_differ_are_named(saved):
    with pytest.raises(InputError, match=r"other settings: steps was 5, now 6; lr was 0\.1, now None; new was None, now 1$"):
        resume(saved[1], fresh_state(), {"text": "9 characters", "steps": 6, "new": 1})


def test_arrays_of_another_shape_are_refused(saved):
    with pytest.raises(InputError, match=r"c\.npz: model\.embedding\.weight has shape \[3, 4\], expected \[3, 8\]"):
        resume(saved[1], fresh_state(width=8), SETTINGS)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def about(text):
    return npz(**{"about.json": np.frombuffer(text, np.uint8)})


@pytest.mark.parametrize(("damage", "message"), [
    (lambda whole: whole[:len(whole) // 2], "damaged"),                                 # cut off
    (lambda whole: whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:], "damaged"),  # one bit
    (lambda whole: b"", "damaged"),
    (lambda whole: b"some text", "damaged"),
    (lambda whole: npz(a=np.zeros(3)), "not a checkpoint of this program"),
    (lambda whole: about(b"{"), "about.json cannot be read"),
    (lambda whole: about(b"[1]"), r"format is \[1\]"),
    (lambda whole: about(b'{"format": "transformer-np checkpoint 9"}'), "format is 'transformer-np checkpoint 9', expected"),
])
def test_a_damaged_or_foreign_file_is_refused_and_left_alone(damage, message, saved):
    path = saved[1]
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"checkpoint .*c\.npz: .*{message}"):
        resume(path, fresh_state(), SETTINGS)
    assert path.read_bytes() == before


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz: there is no such file"):
        read_checkpoint(tmp_path / "none.npz")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere/c\.npz: cannot be written"):
        write_checkpoint(tmp_path / "nowhere" / "c.npz", fresh_state(), SETTINGS, "abc")


def test_an_interruption_while_writing_leaves_the_old_file(saved, monkeypatch):
    state, path = saved
    before = path.read_bytes()

    def half(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, state, SETTINGS, "abc")
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["c.npz"]
