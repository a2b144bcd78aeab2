"""The public names and signatures equal the list in public_api.txt.

python -m tests.test_public_api updates the list.
"""

import enum
import inspect
import pathlib

import keras

import kerasrestart

LIST = pathlib.Path(__file__).with_name("public_api.txt")


def public_api():
    """Returns a line for each public name and each public method that a class defines."""
    lines = []
    for name in sorted(kerasrestart.__all__):
        value = getattr(kerasrestart, name)
        if inspect.ismodule(value):
            lines.append(f"{name}: module")
            lines += [f"{name}.{n}{_signature(getattr(value, n))}" for n in sorted(value.__all__)]
        elif inspect.isclass(value) and issubclass(value, enum.Enum):
            # The signature of an enumeration depends on the version of Python.
            lines.append(f"{name}: {', '.join(value.__members__)}")
        elif inspect.isclass(value):
            # Keras turns a subclass of Model into one of Functional when it is first built so.
            names = (base.__name__.replace("Functional", "Model") for base in value.__bases__)
            bases = ", ".join(names)
            lines.append(f"{name}{_signature(value)} of {bases}")
            own = [base for base in value.__mro__ if base.__module__.startswith("kerasrestart")]
            methods = {n: of for base in reversed(own) for n, of in vars(base).items()}
            for method, defined in sorted(methods.items()):
                if method.startswith("_"):
                    continue
                if isinstance(defined, property):
                    lines.append(f"{name}.{method}: property")
                elif callable(defined):
                    lines.append(f"{name}.{method}{_signature(defined)}")
        else:
            lines.append(f"{name}{_signature(value)}")
    return "\n".join(lines) + "\n"


def _signature(value):
    # Without type hints, which may improve without a change for callers.
    signature = inspect.signature(value)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def test_public_names_and_signatures_equal_the_list():
    listed = LIST.read_text()
    assert public_api() == listed, (
        "The public API has changed. If that is intended, run python -m tests.test_public_api and "
        "add an entry to CHANGELOG.md."
    )


def test_callbacks_name_their_arguments_as_keras_does():
    values = [getattr(kerasrestart, name) for name in kerasrestart.__all__]
    callbacks = [
        v for v in values if inspect.isclass(v) and issubclass(v, keras.callbacks.Callback)
    ]
    assert len(callbacks) > 1
    for callback in callbacks:
        for name, method in inspect.getmembers(keras.callbacks.Callback, inspect.isfunction):
            if name.startswith("on_"):
                expected = list(inspect.signature(method).parameters)
                assert list(inspect.signature(getattr(callback, name)).parameters) == expected


if __name__ == "__main__":
    LIST.write_text(public_api())
