"""Golden vectors: the calls, cotangents, outputs and gradients of our pairs in files, for programs that cannot import Python.

    export_vectors(directory)        writes manifest.json and vectors/NAME.npz
    check_vectors(directory)         reads the answers that another program put into answers/NAME.npz or answers/NAME/*.npy

A file is an .npz: a zip archive, without compression, of .npy arrays. Their names say what they are (# counts from 0):

    input.NAME       an argument of forward; the manifest has them in order, and those that are None
    setting.NAME     a setting of forward that is an array; the others are in the manifest
    random.#         uniform numbers from 0 to 1 that forward drew, where it draws: a weight is dropped where one is below p
    cotangent.#      for each floating output, in order
    output.#         golden: what forward gives; NaN where any number will do
    gradient.NAME    golden: what backward gives, for each floating input

Inputs and cotangents are numbers of the precision asked for, and golden numbers are float64, worked out from those. bfloat16,
which .npy has not, lies in float32. The manifest says for each file: the pair, the settings, the SHA-256, and for each array its
kind, dtype, shape and strides in bytes, and for each golden one how far off an answer may be (`allowed`, see golden.py). It has
the seed, the precision and the version of this schema. The bytes of two exports with one seed are equal, on one machine.

A program answers a file with the arrays `output.#` and `gradient.NAME`, in any floating dtype.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from transformer_np import __version__
from transformer_np.errors import InputError
from transformer_np.files import write_whole
from transformer_np.gradcheck.against import find_reference, references, require_larger
from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.gradcheck.calling.trees import leaves
from transformer_np.gradcheck.examples import Call, Example
from transformer_np.gradcheck.kernels.edges import SIZES, edges_of
from transformer_np.gradcheck.kernels.golden import BOUND, Answer, Golden, work_out
from transformer_np.gradcheck.kernels.larger import LARGER, larger_calls
from transformer_np.gradcheck.report import Check, Report
from transformer_np.layer import Array, read_arrays

SCHEMA = 1
MANIFEST = "manifest.json"
ANSWERS = "answers"
MAX_NUMBERS = 60_000         # in a larger case: half a megabyte; more of them would be files to wait for


class _Recorder(np.random.Generator):
    """A generator that keeps what it drew."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.drawn: list[Array] = []

    def random(self, *arguments: Any, **keywords: Any) -> Any:
        drawn = super().random(*arguments, **keywords)
        self.drawn.append(np.asarray(drawn))
        return drawn


def export_vectors(directory: str | PathLike[str], *, only: Sequence[str] = (), profile: str = "float32",
                   seed: int = 0, larger: int = LARGER) -> list[str]:
    """Write the vectors of every pair, or of those in `only`. Returns the names of the files.

    larger: the length of longer axes, as for `check_against`; the largest of those calls are left out. 0 for small sizes only.
    An earlier export in the directory is replaced, the answers beside it stay. Raises InputError for an unknown name or profile,
    a bad `larger`, or a directory that holds anything else.
    """
    root = Path(directory)
    old = _earlier_export(root)
    try:
        require_larger(larger)
        precision = Precision.of(profile)
        pairs = dict(find_reference(name, seed) for name in only) if only else references(seed)
    except ValueError as error:
        raise InputError(str(error)) from None
    entries, contents = [], {}
    for pair, examples in pairs.items():
        for name, call, golden in _cases(examples, precision, seed, larger):
            file = f"vectors/{name}.npz"
            arrays, about = _arrays(call, golden, precision)
            contents[file] = _npz(arrays)
            settings = {key: value for key, value in call.settings.items() if not isinstance(value, np.ndarray)}
            entries.append({"name": name, "pair": pair, "file": file, "sha256": hashlib.sha256(contents[file]).hexdigest(),
                            "settings": settings, "arrays": about})
    manifest = {"schema": SCHEMA, "program": f"transformer-np {__version__}", "seed": seed, "precision": profile,
                "vectors": entries}
    manifest["sha256"] = _digest(manifest)

    (root / "vectors").mkdir(parents=True, exist_ok=True)
    # the manifest is first: an export that is interrupted is known as one, and may be repeated
    with write_whole(root / MANIFEST) as opened:
        opened.write(json.dumps(manifest, indent=1).encode())
    for entry in old.get("vectors", []):
        (root / entry["file"]).unlink(missing_ok=True)
    for file, content in contents.items():
        (root / file).write_bytes(content)
    return list(contents)


def check_vectors(directory: str | PathLike[str]) -> Iterator[Report]:
    """One report for each file of vectors, on the answers to it. Raises InputError if there is no export, or it is damaged or was
    changed: the golden numbers themselves are checked against the manifest first."""
    root = Path(directory)
    manifest = _read_manifest(root)
    golden = {entry["name"]: _read_vectors(root, entry) for entry in manifest["vectors"]}
    precision = Precision.of(manifest["precision"])
    return _reports(root, manifest["vectors"], golden, precision)


def _reports(root: Path, entries: list[dict[str, Any]], golden: dict[str, dict[str, Array]],
             precision: Precision) -> Iterator[Report]:
    for entry in entries:
        yield Report(entry["name"], tuple(_judge(root, entry, golden[entry["name"]], precision)))
    for path in sorted((root / ANSWERS).iterdir()):
        name = path.name.removesuffix(".npz")
        if name not in golden and not name.startswith("."):
            yield Report(name, (Check("answers", False, f"no vector is called {name}: {path} answers nothing"),))


def _judge(root: Path, entry: dict[str, Any], golden: dict[str, Array], precision: Precision) -> Iterator[Check]:
    asked = {about["name"]: about for about in entry["arrays"] if about["kind"] in ("output", "gradient")}
    try:
        answers = _read_answers(root / ANSWERS, entry["name"])
    except ValueError as error:
        yield Check("answers", False, str(error))
        return
    unexpected = sorted(set(answers) - set(asked))
    if unexpected:
        yield Check("answers", False, f"unexpected {', '.join(unexpected)}; expected {', '.join(asked)}")
    for name, about in asked.items():
        argument = name if about["kind"] == "gradient" else None
        if name not in answers:
            yield Check(name, False, f"missing; there are: {', '.join(answers) or 'none'}", argument=argument)
        elif not np.issubdtype(answers[name].dtype, np.floating):
            yield Check(name, False, f"is {answers[name].dtype}, expected a floating dtype", argument=argument)
        else:
            answer = Answer(name, golden[name], np.isfinite(golden[name]), 0.0, about["allowed"] / BOUND, precision)
            verdict = answer.judge(answers[name])
            yield Check(name, verdict.ok, verdict.says, verdict.figure, BOUND, argument)


# ---------------------------------------------------------------------------------------------------- what is written

def _cases(examples: Sequence[Example], precision: Precision, seed: int, larger: int) -> Iterator[tuple[str, Call, Golden]]:
    """Each example, its edges, and larger calls of it; of all, those that the reference accepts."""
    seen: set[str] = set()
    grown: set[str] = set()

    def worked_out(call: Call) -> Golden | None:
        try:
            return work_out(call, call.inputs, precision, np.random.default_rng([seed, *b"vectors"]))
        except Fault:
            return None

    for example in examples:
        assert example.call is not None  # of a pair
        whole = worked_out(example.call)
        cases = [("", example.call, whole)]
        for kind in SIZES:  # extreme numbers are for `check_against`
            for says, inputs in edges_of(example.call, precision)[kind]:
                call = replace(example.call, inputs=inputs)
                golden = worked_out(call)
                cases.append((says, call, golden.as_lenient_as(whole) if golden is not None and whole is not None else golden))
        for says, call in larger_calls(example.call, larger, seed) if larger else ():
            golden = worked_out(call) if says not in grown else None  # by one example only
            if golden is not None and _numbers(golden) <= MAX_NUMBERS:
                grown.add(says)
                cases.append((says, call, golden.for_long_sums(larger)))
        for says, call, golden in cases:
            if golden is None:
                continue
            says = says.replace(".shape[", " axis ").replace("] =", " size")         # a name of letters, digits and _
            name = re.sub(r"[^a-z0-9]+", "_", f"{example.name} {says}".lower()).strip("_")
            assert name not in seen, f"two cases are called {name}"
            seen.add(name)
            yield name, call, golden


def _numbers(golden: Golden) -> int:
    arrays = [*golden.arguments.values(), *golden.cotangents, *(answer.exact for answer in (*golden.outputs, *golden.gradients))]
    return sum(array.size for array in arrays)


def _arrays(call: Call, golden: Golden, precision: Precision) -> tuple[dict[str, Array], list[dict[str, Any]]]:
    """The arrays of a file, and what the manifest says of each."""
    stored = np.dtype(np.float32) if precision.profile == "bfloat16" else precision.dtype
    arrays: dict[str, Array] = {}
    about: list[dict[str, Any]] = []

    def put(kind: str, name: str, value: Any, dtype: str | None = None, **more: Any) -> None:
        array = np.asarray(value)
        array = np.array(array, stored if dtype == precision.profile else array.dtype, order="C")
        arrays[f"{kind}.{name}"] = array
        about.append({"name": f"{kind}.{name}", "kind": kind, "dtype": dtype or str(array.dtype), "shape": list(array.shape),
                      "strides": list(array.strides), **more})

    parameters = list(inspect.signature(call.forward).parameters)
    for parameter, value in zip(parameters, golden.inputs, strict=False):
        for name, leaf in leaves(value, parameter):
            if leaf is None:
                about.append({"name": f"input.{name}", "kind": "input", "dtype": None})
            else:
                put("input", name, leaf, precision.profile if name in golden.arguments else None)
    for name, value in call.settings.items():
        if isinstance(value, np.ndarray):
            put("setting", name, value)
    for index, drawn in enumerate(_drawn(call, golden)):
        put("random", str(index), drawn)
    for index, cotangent in enumerate(golden.cotangents):
        put("cotangent", str(index), cotangent, precision.profile)
    for index, answer in enumerate(golden.outputs):
        put("output", str(index), _asked(answer), allowed=answer.allowed)
    for name, answer in zip(golden.arguments, golden.gradients, strict=True):
        put("gradient", name, _asked(answer), allowed=answer.allowed)
    return arrays, about


def _asked(answer: Answer) -> Array:
    """The golden numbers, and NaN where any number will do."""
    return np.where(answer.judged | np.isinf(answer.exact), answer.exact, np.nan)


def _drawn(call: Call, golden: Golden) -> list[Array]:
    if call.rng_seed is None:
        return []
    recorder = _Recorder(call.rng_seed)
    call.forward(*golden.inputs, **call.settings, rng=recorder)
    return recorder.drawn


def _npz(arrays: dict[str, Array]) -> bytes:
    """As `np.savez`, without the time of day."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()


def _digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of all that the manifest says but this."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------- what is read

def _earlier_export(root: Path) -> dict[str, Any]:
    """The manifest of the export that is in the directory; empty for a new or empty directory."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return {}
    if not root.is_dir():
        raise InputError(f"{root}: is a file, expected a directory")
    try:
        manifest = json.loads((root / MANIFEST).read_bytes())
        if manifest["program"].startswith("transformer-np ") and all(_is_ours(entry["file"]) for entry in manifest["vectors"]):
            return manifest
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    raise InputError(f"{root}: is not empty, and what is in it is no earlier export; give a new or empty directory")


def _is_ours(file: str) -> bool:
    return re.fullmatch(r"vectors/[a-z0-9_]+\.npz", file) is not None


def _read_manifest(root: Path) -> dict[str, Any]:
    path = root / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; `transformer-np vectors export {root}` writes it") from None
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise InputError(f"{path}: schema {found!r}, expected {SCHEMA}")
    if manifest.get("sha256") != _digest(manifest):
        raise InputError(f"{path}: was changed after it was written: its SHA-256 is not the one it states")
    if not (root / ANSWERS).is_dir():
        raise InputError(f"{root / ANSWERS}: is missing, expected a directory with the answers of the program that is checked")
    return manifest


def _read_vectors(root: Path, entry: dict[str, Any]) -> dict[str, Array]:
    path = root / entry["file"]
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; export the vectors again") from None
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise InputError(f"{path}: damaged or changed: its SHA-256 is not the one of the manifest; export the vectors again")
    return read_arrays(path)


def _read_answers(root: Path, name: str) -> dict[str, Array]:
    """Raises ValueError."""
    archive, folder = root / f"{name}.npz", root / name
    if archive.exists() and folder.exists():
        raise ValueError(f"there are both {archive} and {folder}, expected one of them")
    if archive.exists():
        return read_arrays(archive)
    if not folder.is_dir():
        raise ValueError(f"missing: neither {archive} nor {folder} is there")
    answers = {}
    for path in sorted(folder.glob("*.npy")):
        try:
            answers[path.stem] = np.load(path, allow_pickle=False)
        except Exception as error:  # a damaged file shows in many ways
            raise ValueError(f"{path}: damaged, or not an .npy file ({error})") from error
    return answers
