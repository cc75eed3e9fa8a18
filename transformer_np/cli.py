"""The console script `transformer-np`: train a GPT on the characters of a text, let it write, and check a kernel.

    transformer-np train --text input.txt --out model
    transformer-np generate model --prompt "To be"
    transformer-np check FILE.py:forward,backward --against attention
    transformer-np vectors export DIR

The last two are in `gradcheck/commands.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transformer_np import __version__
from transformer_np.command import Parser, real_number, run, whole_number
from transformer_np.decoding import generate
from transformer_np.errors import InputError
from transformer_np.gradcheck.commands import add_commands
from transformer_np.layer import count_parameters, with_arrays
from transformer_np.models.gpt import GPT
from transformer_np.training.checkpoint import read_checkpoint, resume, write_checkpoint
from transformer_np.training.loop import TrainingState, mean_loss, train
from transformer_np.training.optimizers import AdamW
from transformer_np.training.progress import show_progress
from transformer_np.training.schedules import warmup_cosine
from transformer_np.training.text import CharacterVocabulary, consecutive_windows, read_text, sample_windows, split_text

CHECKPOINT = "checkpoint.npz"
OPTIMIZER = AdamW(betas=(0.9, 0.99), weight_decay=0.1)
CLIP_NORM = 1.0
VALIDATION_WINDOWS = 256  # while training; the loss at the end is over the whole validation text

TRAIN = f"""Train a GPT on the characters of a text: on the first 90 % of them, validated on the rest. The defaults are nanoGPT's
recipe for a small machine: AdamW (betas 0.9 and 0.99, weight decay 0.1 on matrices), gradients clipped to norm 1, a warm-up,
then a cosine down to a tenth of the learning rate. The run is saved in DIR/{CHECKPOINT}: at the start, every so many steps and
on Ctrl-C. The same command goes on where the run stopped, and comes to the same numbers as without the stop (with as many BLAS
threads as before, on the same machine). A run with other settings is another run and needs another DIR; this holds for --steps
too, since the learning rate depends on it."""

GENERATE = """Write on from a prompt, with a model that `transformer-np train` has saved. The model sees the last characters of
the text, as many as its context. An empty prompt stands for the start of a line."""


def main(arguments: Sequence[str] | None = None) -> int:
    right: list[bool] = []
    status = run("transformer-np", lambda: right.append(_dispatch(arguments)))
    return status or int(not all(right))


def _dispatch(arguments: Sequence[str] | None) -> bool:
    """Whether what was checked is right; True for a command that checks nothing."""
    options = _parser().parse_args(arguments)
    if options.command == "train":
        train_command(options)
    elif options.command == "generate":
        generate_command(options)
    else:
        return options.run(options)
    return True


def _parser() -> Parser:
    count, whole = whole_number(1), whole_number(0)
    positive = real_number(lambda x: x > 0, "a positive number")
    not_negative = real_number(lambda x: x >= 0, "a number that is 0 or more")
    probability = real_number(lambda x: 0 <= x < 1, "a number from 0 to below 1")

    parser = Parser(prog="transformer-np",
                    description="Train a GPT on the characters of a text, let it write, and check kernels.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sub = commands.add_parser("train", help="train a model on a text, or go on with a run that was stopped",
                              description=TRAIN)
    sub.add_argument("--text", required=True, metavar="FILE", help="the text to learn, UTF-8")
    sub.add_argument("--out", required=True, metavar="DIR", help="where the model is saved")
    for name, kind, default, text in [
        ("steps", count, 2000, "steps of training"),
        ("width", count, 128, "numbers that stand for one position"),
        ("layers", count, 4, "blocks"),
        ("heads", count, 4, "attention heads; they must divide the width"),
        ("context", count, 64, "characters that the model sees"),
        ("batch", count, 12, "windows of text in a step"),
        ("lr", positive, 1e-3, "learning rate after the warm-up"),
        ("warmup", whole, 100, "steps until then"),
        ("dropout", probability, 0.0, "probability of leaving out a number"),
        ("seed", whole, 0, "of the weights and of the windows drawn"),
        ("every", count, 250, "steps from one saved checkpoint to the next, each with a validation loss, on a part of the text"),
    ]:
        sub.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{text} (default {default})")

    sub = commands.add_parser("generate", help="write on from a prompt", description=GENERATE)
    sub.add_argument("directory", metavar="DIR", help="the --out of `transformer-np train`")
    sub.add_argument("--prompt", default="", metavar="TEXT", help="what to go on from (default: the start of a line)")
    sub.add_argument("--length", type=whole, default=500, metavar="N", help="characters to write (default 500)")
    sub.add_argument("--temperature", type=not_negative, default=0.8, metavar="X",
                     help="0 always takes the likeliest character, 1 draws as the model says (default 0.8)")
    sub.add_argument("--top-k", type=count, metavar="N", help="draw among the N likeliest characters only (default: all)")
    sub.add_argument("--seed", type=whole, default=0, metavar="N", help="of what is drawn (default 0)")

    add_commands(commands)
    return parser


def train_command(options: argparse.Namespace) -> None:
    # 1. everything that can be wrong with the input is found before anything is written
    text = read_text(options.text)
    training_text, validation_text = split_text(text)
    if len(training_text) <= options.context or len(validation_text) < 2:
        raise InputError(f"text file {options.text}: {len(training_text)} characters to train on and {len(validation_text)} to "
                         f"validate on, expected more than --context {options.context} and 2 or more")
    if options.width % options.heads:
        raise InputError(f"--heads {options.heads} does not divide --width {options.width}")
    vocabulary = CharacterVocabulary.from_text(text)
    settings = {name: value for name, value in vars(options).items() if name not in ("command", "out")}
    settings["text"] = f"{len(text):,} characters, SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"

    # 2. the state to start from
    rng = np.random.default_rng(options.seed)
    model = create_model(settings, vocabulary, rng)
    state = TrainingState(model, OPTIMIZER.create_state(model), rng.bit_generator.state)
    checkpoint = Path(options.out) / CHECKPOINT
    if checkpoint.exists():
        state = resume(checkpoint, state, settings)
        print(f"going on after step {state.step} of {options.steps}, saved in {checkpoint}" if state.step < options.steps else
              f"all {options.steps} steps are taken, and saved in {checkpoint}", flush=True)
    else:
        make_folder(options.out)
        write_checkpoint(checkpoint, state, settings, vocabulary.characters)
        print(f"a model of {count_parameters(model):,} parameters, {len(training_text):,} characters to train on, "
              f"{len(validation_text):,} to validate on, {vocabulary.size} different", flush=True)

    # 3. train
    training_ids = vocabulary.encode(training_text)
    tokens, targets = consecutive_windows(vocabulary.encode(validation_text), options.context)
    some = np.linspace(0, len(tokens) - 1, min(len(tokens), VALIDATION_WINDOWS)).astype(int)
    began = time.monotonic()
    with show_progress(options.steps, state.step) as progress:
        state = train(
            state, OPTIMIZER, steps=options.steps, every=options.every, clip_norm=CLIP_NORM, progress=progress,
            draw=lambda rng: sample_windows(training_ids, options.batch, options.context, rng),
            learning_rate=lambda step: warmup_cosine(
                step, peak=options.lr, warmup=options.warmup, total=options.steps, floor=options.lr / 10),
            evaluate=lambda model: mean_loss(model, tokens[some], targets[some], batch=options.batch),
            save=lambda state: write_checkpoint(checkpoint, state, settings, vocabulary.characters))
    seconds = time.monotonic() - began

    # 4. how good it is
    loss = mean_loss(state.model, tokens, targets, batch=options.batch)
    print(f"validation loss {loss:.4f}, {loss / math.log(2):.3f} bits per character, over all {len(validation_text):,} "
          f"characters, after {state.step} steps; {seconds:.1f} s of training now")


def create_model(settings: dict[str, Any], vocabulary: CharacterVocabulary, rng: np.random.Generator) -> GPT:
    return GPT.create(vocabulary.size, context=settings["context"], d_model=settings["width"], num_layers=settings["layers"],
                      num_heads=settings["heads"], dropout=settings["dropout"], rng=rng)


def make_folder(path: str) -> None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be made ({error.strerror})") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"--out {path}: cannot be written to")


def generate_command(options: argparse.Namespace) -> None:
    path = Path(options.directory) / CHECKPOINT
    about, arrays = read_checkpoint(path)
    settings, vocabulary = about["settings"], CharacterVocabulary(about["characters"])
    weights = {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}
    rng = np.random.default_rng(options.seed)
    try:
        model = with_arrays(create_model(settings, vocabulary, rng), weights, source=f"checkpoint {path}")
    except ValueError as error:
        raise InputError(str(error)) from None

    start_of_line = "\n" if "\n" in vocabulary.characters else vocabulary.characters[0]
    try:
        ids = vocabulary.encode(options.prompt or start_of_line)
    except InputError as error:
        raise InputError(f"--prompt: {error}") from None
    print(options.prompt, end="")
    for chosen in generate(model, ids[None], options.length, context=settings["context"],
                           temperature=options.temperature, top_k=options.top_k, rng=rng):
        print(vocabulary.decode(chosen), end="", flush=True)
    print()


if __name__ == "__main__":
    raise SystemExit(main())
