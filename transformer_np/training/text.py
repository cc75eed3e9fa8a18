"""Text as a stream of token ids: read it, number its characters, cut windows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from transformer_np.errors import InputError
from transformer_np.layer import Array


def read_text(path: str | PathLike[str]) -> str:
    """The text of a UTF-8 file, line ends as \\n. Raises InputError if it is missing, unreadable, empty or not UTF-8."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"text file {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"text file {path}: not UTF-8 at byte {error.start} ({error.reason})") from None
    if not text:
        raise InputError(f"text file {path}: is empty, expected some text")
    return text


def split_text(text: str, validation: float = 0.1) -> tuple[str, str]:
    """The first part to train on and the rest, a fraction `validation` of it, to validate on. Not shuffled: a window
    to validate on never overlaps one to train on."""
    if not 0 < validation < 1:
        raise ValueError(f"split_text: validation {validation}, expected a number between 0 and 1")
    cut = int(len(text) * (1 - validation))
    return text[:cut], text[cut:]


@dataclass(frozen=True)
class CharacterVocabulary:
    """One id for each character, in the order of their code points."""

    characters: str

    def __post_init__(self) -> None:
        if not self.characters or list(self.characters) != sorted(set(self.characters)):
            raise ValueError("CharacterVocabulary: expected one or more different characters in order of their code points")

    @classmethod
    def from_text(cls, text: str) -> CharacterVocabulary:
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Array:
        """The ids of the characters, [N]. Raises InputError, naming them, if some are not in the vocabulary."""
        points, known = _code_points(text), _code_points(self.characters)       # [N], [V]
        ids = np.searchsorted(known, points).clip(max=self.size - 1)            # [N]
        unknown = known[ids] != points                                          # [N]
        if unknown.any():
            strangers = sorted({chr(point) for point in points[unknown]})
            some = ", ".join(repr(character) for character in strangers[:10])
            more = "" if len(strangers) <= 10 else f" and {len(strangers) - 10} more"
            raise InputError(f"text has characters that are not in the vocabulary of {self.size}: {some}{more}")
        return ids

    def decode(self, ids: Sequence[int] | Array) -> str:
        """The characters of the ids. Raises ValueError if an id is out of range: NumPy would count from the end."""
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and not (0 <= ids.min() and ids.max() < self.size):
            raise ValueError(f"CharacterVocabulary: ids from {ids.min()} to {ids.max()}, expected 0 to {self.size - 1}")
        return "".join(self.characters[i] for i in ids)


def _code_points(text: str) -> Array:
    # surrogatepass: an argument of a command may hold bytes that were not UTF-8, which Python keeps as lone surrogates
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def sample_windows(ids: Array, batch: int, context: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Windows at random places, for training: tokens [B, T] and targets [B, T], the ids one place further on.

        tokens_bt = ids[start_b + t]        targets_bt = ids[start_b + t + 1]       start uniform over all places that fit

    Raises ValueError if `ids` is too short for one window and its last target.
    """
    places = len(ids) - context
    if places < 1:
        raise ValueError(f"sample_windows: {len(ids)} ids, expected more than the context, {context}")
    starts = rng.integers(0, places, size=(batch, 1))                           # [B, 1]
    tokens_at = starts + np.arange(context)                                     # [B, T]
    return ids[tokens_at], ids[tokens_at + 1]


def consecutive_windows(ids: Array, context: int, *, ignore_index: int = -100) -> tuple[Array, Array]:
    """Windows side by side, for evaluation: tokens [N, T] and targets [N, T]. Each id but the first is a target exactly once.

    The last window is filled up with token 0 and targets `ignore_index`, which do not count.
    """
    windows = -(-(len(ids) - 1) // context) if len(ids) else 0                  # ceiling: N
    tokens = np.zeros(windows * context, dtype=np.int64)                        # [N * T]
    targets = np.full(windows * context, ignore_index, dtype=np.int64)          # [N * T]
    tokens[:max(len(ids) - 1, 0)] = ids[:-1]
    targets[:max(len(ids) - 1, 0)] = ids[1:]
    return tokens.reshape(windows, context), targets.reshape(windows, context)
