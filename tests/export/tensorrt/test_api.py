"""What we take TensorRT's API to be is what its own bindings say: TensorRT-RTX's, which have TensorRT 11's shape.

TensorRT 10.3's bindings cannot be installed here. What RTX has otherwise than TensorRT, of what we touch:

- timing caches are a no-op, with a DeprecationWarning;
- NetworkDefinitionCreationFlag.STRONGLY_TYPED is bit 0 (bit 1 in TensorRT 10), which is why it is looked up by name.
"""

import inspect
import re

import pytest

from runtime.tensorrt.api import CLASSES, VALUES, library_of
from tests.paths import ROOT
from tests.runtime.tensorrt import fake_tensorrt

tensorrt_rtx = pytest.importorskip("tensorrt_rtx")


def members(protocol):
    return [name for name in vars(protocol) if not name.startswith("_") and callable(vars(protocol)[name])]


METHODS = [(name, method) for name, protocol in CLASSES.items() for method in members(protocol)]
ATTRIBUTES = [
    (name, attribute) for name, protocol in CLASSES.items() for attribute in vars(protocol).get("__annotations__", {})
]
IDS = {"ids": lambda value: value}


def signatures(method):
    """Return the overloads of a bound C++ method, from its docstring: {parameter: whether it has a default}."""
    lines = re.findall(rf"^(?:\d+\. )?{method.__name__}\((.*)\) -> ", method.__doc__, re.MULTILINE)
    assert lines, method.__doc__
    return [
        {name: default is not None for name, default in _parameters(line) if name != "self"}
        for line in lines
        if not line.startswith("*args")
    ]


def _parameters(line):
    for part in re.split(r", (?=\w+: )", line):
        name, _, rest = part.partition(":")
        yield name, rest.partition(" = ")[2] or None


def parameters(function):
    found = inspect.signature(function).parameters.values()
    return {each.name: each.default is not inspect.Parameter.empty for each in found if each.name != "self"}


@pytest.mark.parametrize(("name", "method"), METHODS, **IDS)
def test_a_method_takes_what_we_give_it(name, method):
    ours = parameters(vars(CLASSES[name])[method])
    theirs = signatures(getattr(getattr(tensorrt_rtx, name), method))
    assert any(_fits(ours, overload) for overload in theirs), theirs


def _fits(ours, overload):
    """Our parameters are its first ones, by name and place; what is left has defaults."""
    names = list(overload)
    return list(ours) == names[: len(ours)] and all(overload[name] for name in names[len(ours) :])


@pytest.mark.parametrize(("name", "attribute"), ATTRIBUTES, **IDS)
def test_an_attribute_exists(name, attribute):
    assert isinstance(getattr(getattr(tensorrt_rtx, name), attribute), property)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in VALUES for value in VALUES[name]], **IDS)
def test_a_value_exists(name, value):
    assert getattr(getattr(tensorrt_rtx, name), value).name == value


@pytest.mark.parametrize("name", ["Builder", "Runtime", "OnnxParser"])
def test_what_is_made_takes_our_logger(name):
    theirs = signatures(getattr(tensorrt_rtx, name).__init__)
    expected = {"network": False, "logger": False} if name == "OnnxParser" else {"logger": False}
    assert theirs == [expected]
    assert parameters(getattr(fake_tensorrt, name).__init__) == expected


def test_our_logger_is_told_what_tensorrt_says():
    library = library_of(tensorrt_rtx)
    library.heard.clear()
    library.listener.log(tensorrt_rtx.ILogger.Severity.ERROR, "no")
    library.listener.log(tensorrt_rtx.ILogger.Severity.VERBOSE, "chatter")
    assert list(library.heard) == [("ERROR", "no")]
    assert library.said() == "no"
    assert library.version == tensorrt_rtx.__version__


@pytest.mark.parametrize(("name", "method"), METHODS, **IDS)
def test_the_stand_in_of_the_tests_takes_what_the_real_one_takes(name, method):
    ours = parameters(vars(getattr(fake_tensorrt, name))[method])
    assert any(_fits(ours, overload) for overload in signatures(getattr(getattr(tensorrt_rtx, name), method)))


def test_the_stand_in_has_nothing_that_the_real_one_has_not():
    for name in CLASSES:
        fake, real = getattr(fake_tensorrt, name), getattr(tensorrt_rtx, name)
        made = {each for each in vars(fake) if not each.startswith("_") and each != "data"}
        assert made <= set(dir(real)), name
    for name in VALUES:
        assert set(VALUES[name]) <= {each.name for each in getattr(fake_tensorrt, name)}


def test_every_class_and_value_is_in_the_tables():
    """A name of TensorRT that the code uses and no test above looks at would go unchecked."""
    for path in ("export/tensorrt.py", "runtime/tensorrt/session.py", "runtime/tensorrt/engine.py"):
        source = (ROOT / path).read_text()
        for name in re.findall(r"\b(?:trt|module)\.([A-Z]\w+)", source):
            assert name in CLASSES or name in VALUES or name == "ILogger", name
