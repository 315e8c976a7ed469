# SPDX-License-Identifier: Apache-2.0
"""Layers, quantizers and functions of the user's own: Python files that are imported before a Keras file is read.

Keras stores such objects by name. A name is found where its class or function was registered with
tf.keras.utils.register_keras_serializable, or is defined at the top of a file that was imported here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import larq
import tensorflow as tf

from bnngen.errors import ModelError, UsageError
from bnngen.export.config import OwnCode

UNKNOWN = (
    re.compile(r"(?:Could not|Cannot) (?:locate|deserialize) (?:object of type|class|function) [`']([^`']+)"),  # .keras
    re.compile(r"Unknown [\w -]+: '?([\w.>]+)'?"),  # .h5, and Larq's quantizers in both
)
SAVE_AS_KERAS = "save the model with model.save('model.keras')"
LAMBDA = "deserialization of a Lambda layer"  # so Keras says what it refuses


@contextlib.contextmanager
def own_objects(own: OwnCode) -> Iterator[None]:
    """Make what the files define known to Keras.

    The names are lent to `__main__` too: a Lambda saved by a script looks there for what it calls. Raises UsageError
    for a file that is not there, ModelError for one that cannot be imported.
    """
    modules = [_imported(path) for path in own.files]
    objects = {name: value for module in modules for name, value in vars(module).items() if _is_own(value, module)}
    with _lent_to_main(modules), tf.keras.utils.custom_object_scope(objects):
        yield


def load(path: Path, own: OwnCode) -> tf.keras.Model:
    """Return the model in the file. A Lambda layer is read where a file was imported, or where it is trusted.

    Raises what Keras raises, and ValueError for a Lambda.
    """
    may_run = bool(own.files) or own.trust_lambdas
    if path.suffix != ".keras" and not may_run and _has_lambda(path):  # Keras itself looks into .keras files alone
        raise ValueError(LAMBDA)
    with own_objects(own):
        return tf.keras.models.load_model(path, compile=False, safe_mode=not may_run)


def _has_lambda(path: Path) -> bool:
    """True where an .h5 file holds a Lambda layer with the code of a function."""
    with h5py.File(path) as file:
        text = file.attrs.get("model_config", "")
    return re.search(r'"(function|output_shape|mask)_type": *"lambda"|"__lambda__"', str(text)) is not None


def reason(error: Exception, path: Path, own: OwnCode) -> tuple[str, str] | None:
    """Return (why, fix) where Keras could not read a file for want of the user's own code; None for other errors."""
    text = str(error)
    if LAMBDA in text:
        return (
            "a Lambda layer holds Python code, which would run when the file is read",
            "if you trust the file: --trust-lambdas, or --import FILE.py, the Python file that defines the model",
        )
    found = _unknown_quantizer(path, own) if "quantiz" in text else None
    found = found or next((match.group(1) for pattern in UNKNOWN for match in [pattern.search(text)] if match), None)
    if found is None:
        return None
    if found == "function":
        return "Larq cannot read a function of your own as quantizer from an .h5 file", SAVE_AS_KERAS
    name = found.rsplit(">", 1)[-1]
    if own.files:
        files = ", ".join(path.name for path in own.files)
        return f"{name} is neither of Keras or Larq, nor defined in {files}", "--import the file that defines it too"
    return (
        f"{name} is a layer, quantizer or function of your own, and the file holds its name alone",
        f"--import FILE.py, the Python file that defines {name} (it is run: import only what you trust)",
    )


def _unknown_quantizer(path: Path, own: OwnCode) -> str | None:
    """Return the name of a quantizer in a .keras file that Larq does not know: its own message leaves the name out."""
    try:
        with zipfile.ZipFile(path) as archive, own_objects(own):
            names = _quantizer_names(json.loads(archive.read("config.json")))
            return next((name for name in names if not _is_known(name)), None)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _quantizer_names(config: Any) -> Iterator[str]:
    """Yield what the keys *_quantizer of a configuration name."""
    if isinstance(config, list):
        for item in config:
            yield from _quantizer_names(item)
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        if key.endswith("_quantizer") and value is not None:
            name = _stored_name(value) if isinstance(value, dict) else value
            if isinstance(name, str):
                yield name
        else:
            yield from _quantizer_names(value)


def _stored_name(config: dict[str, Any]) -> Any:
    """Return the name under which Keras looks up a function or an object."""
    if config.get("class_name") == "function":
        return config.get("config")
    return config.get("registered_name") or config.get("class_name")


def _is_known(name: str) -> bool:
    return name in vars(larq.quantizers) or tf.keras.utils.get_registered_object(name) is not None


def _imported(path: Path) -> ModuleType:
    """Return the file as a module, imported once a process. Its neighbours can be imported by it."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}", where="--import", fix="name the .py file of your layers")
    known = sys.modules.get(path.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == path.resolve():
        return known
    name = path.stem if known is None else f"{path.stem} {path.resolve()}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"{path.name} is not a Python file", where="--import", fix="name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the file does
        del sys.modules[name]
        raise ModelError(
            f"{path.name} cannot be imported",
            where=str(path),
            why=f"{type(error).__name__}: {error}",
            fix="it should define layers and quantizers; put what trains behind `if __name__ == '__main__':`",
        ) from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _is_own(value: object, module: ModuleType) -> bool:
    """True for a class or function that the file itself defines."""
    return callable(value) and getattr(value, "__module__", None) == module.__name__


@contextlib.contextmanager
def _lent_to_main(modules: Sequence[ModuleType]) -> Iterator[None]:
    main = vars(sys.modules["__main__"])
    names = {name: value for module in modules for name, value in vars(module).items() if not name.startswith("__")}
    lent = {name: value for name, value in names.items() if name not in main}
    main.update(lent)
    try:
        yield
    finally:
        for name in lent:
            main.pop(name, None)
