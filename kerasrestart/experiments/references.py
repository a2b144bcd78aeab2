"""Your own functions by name: `package.module:function` and `path/to/file.py:function`.

A reference is found without running it, so that a wrong name is refused at once, and loaded when
work begins. Its file's SHA-256 shows whether it has changed.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import pathlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from kerasrestart.experiments.paths import user_path
from kerasrestart.network.text import did_you_mean

_IDENTIFIER = r"[^\W\d]\w*"
_DOTTED = rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*"
_FORM = re.compile(rf"(?P<module>{_DOTTED}|[^:,\n\r]+\.py):(?P<name>{_DOTTED})")

_registered: dict[str, tuple[Any, str | None]] = {}  # text -> object of this process, its hash
_files: dict[tuple[str, str], ModuleType] = {}  # path and hash -> module
_modules: dict[str, str | None] = {}  # module -> hash of its file when it was imported
_loading: list[str] = []


class WrongReferenceError(ValueError):
    """A reference that leads to nothing, or whose code fails. The message is one line."""


def is_reference(text: Any) -> bool:
    """Whether a text has the form of a reference."""
    if not isinstance(text, str):
        return False
    return text in _registered or _FORM.fullmatch(text) is not None


def short_name(text: str) -> str:
    """The name of a reference's function, for names of runs and networks."""
    return re.sub(r"[^\w.+-]", "_", text.rpartition(":")[2].rpartition(".")[2], flags=re.ASCII)


def find(text: str) -> pathlib.Path | None:
    """Finds the file of a reference, and the name in it, without running it.

    Packages above a module are imported.

    Args:
        text: The reference.

    Returns:
        The file; None for a module without Python code.

    Raises:
        WrongReferenceError: There is no such module, file or name.
    """
    if text in _registered:
        return None
    module, name = _parts(text)
    path = _file_of(module)
    if path is not None and path.suffix == ".py":
        names = _names_in(path)
        first = name.partition(".")[0]
        if names is not None and first not in names:
            raise WrongReferenceError(f"{module} has no {first!r}{did_you_mean(first, names)}")
    return path


def load(text: str) -> Any:
    """Imports the object that a reference names.

    A file is run as a module; its folder is searched for what it imports. A file that has not
    changed is run once.

    Args:
        text: The reference.

    Raises:
        WrongReferenceError: There is no such object, or its module fails.
    """
    if text in _registered:
        return _registered[text][0]
    find(text)
    module, name = _parts(text)
    with _one_line(text), _being_loaded(text):
        found: Any = _run_file(module) if module.endswith(".py") else _imported(module)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            hint = did_you_mean(part, [n for n in dir(found) if not n.startswith("_")])
            raise WrongReferenceError(f"{module} has no {part!r}{hint}") from error
    return found


def call(text: str, *arguments: Any) -> Any:
    """Loads a reference and calls it.

    Raises:
        WrongReferenceError: It cannot be loaded or called, or fails.
    """
    function = load(text)
    if not callable(function):
        raise WrongReferenceError(f"it is not a function: {type(function).__name__}")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise WrongReferenceError(f"it cannot be called: {error}") from error
    except ValueError:  # some have no signature
        pass
    with _one_line(text):
        return function(*arguments)


def sha256_of(text: str) -> str | None:
    """SHA-256 of the file of a reference; None where it is not a file of Python code.

    Raises:
        WrongReferenceError: As `find`.
    """
    if text in _registered:
        return _registered[text][1]
    module = _parts(text)[0]
    if module in _modules:  # what was imported, not what is on disk by now
        return _modules[module]
    return _hash_of(find(text))


def register(value: Any, name: str | None = None, *, sha256: str | None = None) -> str:
    """Gives an object of this process a reference.

    Args:
        value: A function, class or object.
        name: Its reference. Defaults to None: where it is defined.
        sha256: Its hash. Defaults to None: that of its file or source.

    Returns:
        The reference. Other processes can load it if `find` finds it there.
    """
    owner = value if hasattr(value, "__qualname__") else type(value)
    text = name or _reference_to(owner)
    _registered[text] = (value, sha256 or _hash_of_source(owner, value))
    return text


def register_result(value: Any, name: str) -> str:
    """Gives the result of a function that is to be called a reference, see `register`."""
    register(value, name)
    sha256 = _registered[name][1]
    _registered[name] = (lambda: value, sha256)
    return name


def is_importable(value: Any) -> bool:
    """Whether other processes can load an object by the reference that `register` gives it."""
    if not hasattr(value, "__qualname__") or "<" in value.__qualname__:
        return False
    module = sys.modules.get(value.__module__)
    return getattr(module, "__file__", None) is not None and (
        getattr(module, value.__qualname__.partition(".")[0], None) is not None
    )


def refuse_while_loading(function: str) -> None:
    """Refuses work that a module starts while it is imported for its function.

    Raises:
        RuntimeError: A reference is being loaded.
    """
    if _loading:
        raise RuntimeError(
            f"{function} was called by a module that is imported for {_loading[-1]!r}: put the "
            "call under if __name__ == '__main__':"
        )


def _parts(text: str) -> tuple[str, str]:
    match = _FORM.fullmatch(text)
    if match is None:
        raise WrongReferenceError("it must be package.module:function or path/to/file.py:function")
    return match["module"], match["name"]


def _file_of(module: str) -> pathlib.Path | None:
    if module.endswith(".py"):
        try:
            path = user_path(module, "it")
        except ValueError as error:
            raise WrongReferenceError(str(error)) from error
        if not path.is_file():
            others = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
            raise WrongReferenceError(f"no such file{did_you_mean(path.name, others)}")
        return path
    _search_working_directory()
    if (loaded := sys.modules.get(module)) is not None:
        origin = getattr(loaded, "__file__", None)
    else:
        try:
            with _one_line(module):
                spec = importlib.util.find_spec(module)
        except WrongReferenceError as error:
            if not isinstance(error.__cause__, ModuleNotFoundError):
                raise
            spec = None
        if spec is None:
            raise WrongReferenceError(_no_module(module))
        origin = spec.origin
    return pathlib.Path(origin) if origin and origin.endswith(".py") else None


def _no_module(module: str) -> str:
    """What is missing: the module, or a package above it."""
    parent, _, last = module.rpartition(".")
    package = sys.modules.get(parent)
    if parent and package is None:
        try:
            missing = importlib.util.find_spec(parent) is None
        except (ImportError, ValueError):
            missing = True
        if missing:
            return _no_module(parent)
    places = getattr(package, "__path__", None) if parent else ["."]
    names = [found.name for found in pkgutil.iter_modules(places)] if places else []
    return f"no module named {module!r}{did_you_mean(last, names)}"


def _names_in(path: pathlib.Path) -> set[str] | None:
    """The names that a file defines at its top; None where that is only known by running it."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise WrongReferenceError(f"{path.name}{line}: {_text(error)}") from error
    except OSError as error:
        raise WrongReferenceError(f"{path} cannot be read: {error.strerror}") from error
    names: set[str] = set()
    for node in ast.walk(tree):  # also inside if and try; an inner name too many does no harm
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            if any(alias.name == "*" for alias in node.names):
                return None
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return None if "__getattr__" in names else names


def _run_file(module: str) -> ModuleType:
    path = user_path(module, "it").resolve()
    content = path.read_bytes()
    key = (str(path), hashlib.sha256(content).hexdigest())
    if key not in _files:
        folder = str(path.parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)  # as when Python runs the file
        # A name of its own: the file may be called as an installed package is.
        name = f"_kerasrestart_file_{len(_files)}_{path.stem}"
        made = ModuleType(name)
        made.__file__ = str(path)
        sys.modules[name] = made  # dataclasses and Keras look here
        try:
            exec(compile(content, str(path), "exec"), made.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        _files[key] = made
    return _files[key]


def _imported(module: str) -> ModuleType:
    _search_working_directory()
    found = importlib.import_module(module)
    if module not in _modules:
        path = getattr(found, "__file__", None)
        _modules[module] = _hash_of(pathlib.Path(path) if path else None)
    return found


def _search_working_directory() -> None:
    """Lets modules be imported from the working directory, as `python -m` does."""
    here = os.getcwd()  # noqa: PTH109
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # a file may be new


def _hash_of(path: pathlib.Path | None) -> str | None:
    if path is None or path.suffix != ".py":
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WrongReferenceError(f"{path} cannot be read: {error.strerror}") from error


def _hash_of_source(owner: Any, value: Any) -> str | None:
    source: bytes | None = None
    with contextlib.suppress(OSError, TypeError):
        path = pathlib.Path(inspect.getsourcefile(owner) or "")
        source = path.read_bytes() if path.is_file() else inspect.getsource(owner).encode()
    if source is None:
        return None
    if owner is not value:  # an object: its arguments matter too
        if hasattr(value, "get_config"):
            source += repr(value.get_config()).encode()
        elif type(value).__repr__ is not object.__repr__:  # that has an address in memory
            source += repr(value).encode()
    return hashlib.sha256(source).hexdigest()


def _reference_to(owner: Any) -> str:
    module = sys.modules.get(owner.__module__)
    file = getattr(module, "__file__", None)
    if file and "." not in owner.__module__ and _is_script(file):
        path = pathlib.Path(file).resolve()
        with contextlib.suppress(ValueError):
            path = path.relative_to(pathlib.Path.cwd())
        return f"{path}:{owner.__qualname__}"
    return f"{owner.__module__}:{owner.__qualname__}"


def _is_script(file: str) -> bool:
    """Whether a file is a script, or a module beside one; those are named by their path."""
    return file.endswith(".py") and "site-packages" not in pathlib.Path(file).parts


@contextlib.contextmanager
def _being_loaded(text: str) -> Iterator[None]:
    _loading.append(text)
    try:
        yield
    finally:
        _loading.pop()


@contextlib.contextmanager
def _one_line(text: str) -> Iterator[None]:
    """Makes an error of the user's code one line that names the place."""
    try:
        yield
    except WrongReferenceError:
        raise
    except (Exception, SystemExit) as error:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if pathlib.Path(frame.filename).parts[-2:-1] != ("importlib",)
            and not frame.filename.startswith("<")
            and frame.filename != __file__
        ]
        own = [frame for frame in frames if "site-packages" not in frame.filename]
        last = (own or frames or [None])[-1]
        place = f" ({pathlib.Path(last.filename).name}, line {last.lineno})" if last else ""
        reason = f"{type(error).__name__}: {_text(error)}{place}"
        raise WrongReferenceError(f"{text.rpartition(':')[2]} fails: {reason}") from error


def _text(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return str(error.msg)
    return " ".join(str(error).split()) or type(error).__name__
