"""What we take TensorRT's API to be is what its own bindings say: TensorRT-RTX's, which have TensorRT 11's shape.

TensorRT 10.3's bindings cannot be installed here. What RTX has otherwise than TensorRT, of what we touch:

- timing caches are a no-op, with a DeprecationWarning, and are not asked for;
- contexts are made by an IRuntimeConfig, which TensorRT 10.3 does not have;
- NetworkDefinitionCreationFlag.STRONGLY_TYPED is bit 0 (bit 1 in TensorRT 10), which is why it is looked up by name.
"""

import inspect
import re

import pytest

from runtime.tensorrt.api import CLASSES, VALUES, VALUES_OF_RTX
from runtime.tensorrt.library import TENSORRT_RTX, library_of
from tests.paths import ROOT
from tests.runtime.tensorrt import fake_tensorrt, fake_tensorrt_rtx

tensorrt_rtx = pytest.importorskip("tensorrt_rtx")


def members(protocol):
    return [name for name in vars(protocol) if not name.startswith("_") and callable(vars(protocol)[name])]


METHODS = [(name, method) for name, protocol in CLASSES.items() for method in members(protocol)]
ATTRIBUTES = [
    (name, attribute) for name, protocol in CLASSES.items() for attribute in vars(protocol).get("__annotations__", {})
]
OF_RTX = {"IRuntimeConfig", "create_runtime_config"}
"""What the stand-in of TensorRT 10.3 lacks, as that does."""
ALL_VALUES = VALUES | VALUES_OF_RTX
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


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in ALL_VALUES for value in ALL_VALUES[name]], **IDS)
def test_a_value_exists(name, value):
    assert getattr(getattr(tensorrt_rtx, name), value).name == value


@pytest.mark.parametrize("name", ["Builder", "Runtime", "OnnxParser"])
def test_what_is_made_takes_our_logger(name):
    theirs = signatures(getattr(tensorrt_rtx, name).__init__)
    expected = {"network": False, "logger": False} if name == "OnnxParser" else {"logger": False}
    assert theirs == [expected]
    for fake in (fake_tensorrt, fake_tensorrt_rtx):
        assert parameters(getattr(fake, name).__init__) == expected


def test_our_logger_is_told_what_tensorrt_says():
    library = library_of(tensorrt_rtx, TENSORRT_RTX)
    library.heard.clear()
    library.listener.log(tensorrt_rtx.ILogger.Severity.ERROR, "no")
    library.listener.log(tensorrt_rtx.ILogger.Severity.VERBOSE, "chatter")
    assert list(library.heard) == [("ERROR", "no")]
    assert library.said() == "no"
    assert library.version == f"RTX {tensorrt_rtx.__version__}"


def test_the_library_says_which_gpus_it_serves():
    served = library_of(tensorrt_rtx, TENSORRT_RTX).serves()
    assert {"8.6", "8.9", "12.0"} <= set(served)
    assert not {"7.5", "8.7", "9.0", "10.0"} & set(served)
    assert library_of(fake_tensorrt_rtx, TENSORRT_RTX).serves() == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert library_of(fake_tensorrt).serves() is None


@pytest.mark.parametrize(("name", "method"), METHODS, **IDS)
def test_the_stand_in_of_the_tests_takes_what_the_real_one_takes(name, method):
    theirs = signatures(getattr(getattr(tensorrt_rtx, name), method))
    for fake in (fake_tensorrt_rtx,) if {name, method} & OF_RTX else (fake_tensorrt, fake_tensorrt_rtx):
        assert any(_fits(parameters(getattr(getattr(fake, name), method)), overload) for overload in theirs)


def test_the_stand_in_has_nothing_that_the_real_one_has_not():
    for fake in (fake_tensorrt, fake_tensorrt_rtx):
        for name in CLASSES.keys() & vars(fake).keys():
            made = {each for each in vars(getattr(fake, name)) if not each.startswith("_") and each != "data"}
            assert made <= set(dir(getattr(tensorrt_rtx, name))), name
        for name in ALL_VALUES.keys() & vars(fake).keys():
            assert set(ALL_VALUES[name]) <= {each.name for each in getattr(fake, name)}
    assert (CLASSES | ALL_VALUES).keys() - vars(fake_tensorrt).keys() == {"IRuntimeConfig", *VALUES_OF_RTX}
    assert (CLASSES | ALL_VALUES).keys() <= vars(fake_tensorrt_rtx).keys()


def test_every_class_and_value_is_in_the_tables():
    """A name of TensorRT that the code uses and no test above looks at would go unchecked."""
    for path in ("export/tensorrt.py", *(f"runtime/tensorrt/{each}.py" for each in ("session", "engine", "library"))):
        source = (ROOT / path).read_text()
        for name in re.findall(r"\b(?:trt|module)\.([A-Z]\w+)", source):
            assert name in CLASSES or name in ALL_VALUES or name == "ILogger", name
