"""Language modelling: the next character of a real text."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from baselines_np.comparison.n_gram import NGram
from baselines_np.comparison.task import IGNORED, Baseline, Batch, Task, predict
from transformer_np.errors import InputError
from transformer_np.layer import Array
from transformer_np.training.text import CharacterVocabulary, consecutive_windows, read_text, sample_windows, split_text

HELD_OUT = 0.1               # of the text: the last part
LARGEST_VOCABULARY = 6000    # a 5-gram model numbers its contexts in base V, and 6000^5 < 2^63


@dataclass(frozen=True)
class LanguageModel(Task):
    """Training windows start anywhere in the training part. Held-out windows stand side by side, so that every arm predicts
    the same characters from the same characters before them: at most `context`, fewer near the beginning of a window.

    The windows are dealt out in turn: one to validate on, one to test on. A text changes on its way; two halves would differ more
    from each other than the arms do."""

    source: str                              # where the text comes from, for the reader
    sha256: str                              # of the text, which may change between versions of Python
    characters: str                          # the vocabulary
    train_ids: Array = field(repr=False)     # [N]
    held_out_ids: Array = field(repr=False)
    context: int
    batch: int

    @classmethod
    def create(cls, text: str, source: str, *, context: int, batch: int) -> LanguageModel:
        """Raises InputError if the text is too short for the context, or has too many different characters."""
        vocabulary = CharacterVocabulary.from_text(text)
        if vocabulary.size > LARGEST_VOCABULARY:
            raise InputError(f"text {source}: {vocabulary.size} different characters, expected at most {LARGEST_VOCABULARY}")
        train, held_out = split_text(text, HELD_OUT)
        if len(held_out) <= 2 * context:
            raise InputError(f"text {source}: {len(text)} characters leave {len(held_out)} to validate and test on, expected "
                             f"more than two windows of {context}: about {math.ceil((2 * context + 1) / HELD_OUT)} in all")
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        return cls(source, sha256, vocabulary.characters, vocabulary.encode(train), vocabulary.encode(held_out), context, batch)

    @property
    def vocabulary(self) -> int:
        return len(self.characters)

    @property
    def longest(self) -> int:
        return self.context

    def settings(self) -> dict[str, Any]:
        return {"source": self.source, "characters": len(self.train_ids) + len(self.held_out_ids), "sha256": self.sha256,
                "vocabulary": self.vocabulary, "held_out": HELD_OUT, "context": self.context, "batch": self.batch}

    def draw(self, rng: np.random.Generator) -> Batch:
        return sample_windows(self.train_ids, self.batch, self.context, rng)

    def validation(self) -> Batch:
        return self._held_out(first=0)

    def test(self) -> Batch:
        return self._held_out(first=1)

    def _held_out(self, first: int) -> Batch:
        """Every second window, from `first` on."""
        tokens, targets = consecutive_windows(self.held_out_ids, self.context, ignore_index=IGNORED)  # [N, T]
        return tokens[first::2], targets[first::2]

    def baselines(self) -> dict[str, Baseline]:
        unigram = self.n_gram(1)
        tokens, targets = self.test()
        nats = predict(unigram, tokens, targets).nats
        return {"chance": Baseline(math.log2(self.vocabulary), "every character of the vocabulary alike"),
                "unigram": Baseline(nats / math.log(2), "how often each character comes in the training part")}

    def n_gram(self, n: int) -> NGram:
        return NGram.fit(self.train_ids, n, self.vocabulary)


def prose_of_the_standard_library() -> str:
    """The text of `help("topics")`: about 370,000 characters on the Python language, in every installation of Python.

    Some topics repeat paragraphs of others. Each is kept once: a tenth of what is held out would be in the training part too."""
    from pydoc_data.topics import topics

    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraphs))


def text_and_source(path: str | PathLike[str] | None) -> tuple[str, str]:
    """The text of the file and its name, or the default. Raises InputError if the file is missing, empty or not UTF-8."""
    if path is None:
        return prose_of_the_standard_library(), "pydoc_data.topics"
    return read_text(path), Path(path).name
