"""Checkpoints: a training run in one .npz file, from which it goes on to the same numbers, bit for bit.

The file holds the arrays of the `TrainingState` under their dotted names (`model.blocks.0...`, `optimizer.mean...`) and one
entry more, `about.json`: the step, the state of the random generator, the history, the settings and the vocabulary.
"""

from __future__ import annotations

import json
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from transformer_np.errors import InputError
from transformer_np.files import write_whole
from transformer_np.layer import Array, named_arrays, read_arrays, with_arrays
from transformer_np.training.loop import TrainingState

ABOUT = "about.json"
FORMAT = "transformer-np checkpoint 1"


def write_checkpoint(path: str | PathLike[str], state: TrainingState, settings: dict[str, Any], characters: str) -> None:
    """Write `state` whole or not at all. settings: what was chosen for this run, as JSON can hold it.   characters: those of
    the vocabulary. Raises InputError if the file cannot be written."""
    about = {"format": FORMAT, "settings": settings, "characters": characters, "step": state.step, "rng": state.rng,
             "summed_loss": state.summed_loss, "history": state.history}
    text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    try:
        with write_whole(path) as file:
            np.savez(file, **named_arrays(state), **{ABOUT: text})  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"checkpoint {path}: cannot be written ({error.strerror})") from None


def read_checkpoint(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """What `about.json` holds, and the arrays. Raises InputError if the file is missing, damaged, or not a checkpoint."""
    try:
        arrays = read_arrays(path)
    except FileNotFoundError:
        raise InputError(f"checkpoint {path}: there is no such file") from None
    except ValueError as error:
        raise InputError(f"checkpoint {error}") from None
    if ABOUT not in arrays:
        raise InputError(f"checkpoint {path}: an .npz file, but not a checkpoint of this program: it has no {ABOUT}")
    try:
        about = json.loads(arrays.pop(ABOUT).tobytes())
    except ValueError as error:
        raise InputError(f"checkpoint {path}: {ABOUT} cannot be read ({error})") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else about
        raise InputError(f"checkpoint {path}: its format is {found!r}, expected {FORMAT!r}")
    return about, arrays


def resume(path: str | PathLike[str], fresh: TrainingState, settings: dict[str, Any]) -> TrainingState:
    """The state in the file. `fresh`, a state at step 0 of the same settings, gives the structure.

    Raises InputError if the file cannot be read, or if its settings are others, which are named.
    """
    about, arrays = read_checkpoint(path)
    theirs = about["settings"]
    differing = [f"{name} was {theirs.get(name)}, now {settings.get(name)}"
                 for name in {**theirs, **settings} if theirs.get(name) != settings.get(name)]
    if differing:
        raise InputError(f"checkpoint {path}: is of a run with other settings: {'; '.join(differing)}")
    try:
        restored = with_arrays(fresh, arrays, source=f"checkpoint {path}")
    except ValueError as error:
        raise InputError(str(error)) from None
    history = tuple((step, training_loss, validation_loss) for step, training_loss, validation_loss in about["history"])
    return replace(restored, rng=about["rng"], step=about["step"], summed_loss=about["summed_loss"], history=history)
