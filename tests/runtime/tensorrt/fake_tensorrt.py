"""TensorRT as far as edgeproof touches it, with the signatures of the real one and ONNX Runtime behind.

Strict: what is not here does not exist, a wrong type or order of calls fails, and memory is read and written at the
addresses given, when the stream is synchronised. tests/export/tensorrt/test_api.py holds it against the real bindings.
"""

import ctypes
import enum
import json
from collections import Counter

import numpy as np
import onnx
import onnxruntime

__version__ = "10.3.0"
HEADER = b"ENGINE "
TIMINGS = b"TIMINGS "
WORKING = 1000
"""Bytes that a row is worked in."""


class World:
    """What a test may look at, and break."""

    def __init__(self):
        self.alive = Counter()
        self.builds = 0
        self.broken = {}
        self.stream = None


world = World()


class Counted:
    """Known to be there as long as it is."""

    __slots__ = ()

    def __new__(cls, *given):
        world.alive[cls.__name__] += 1
        return super().__new__(cls)

    def __del__(self):
        world.alive[type(self).__name__] -= 1


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self):
        self._made = True

    def log(self, severity, msg):
        raise NotImplementedError


ExecutionContextAllocationStrategy = enum.IntEnum(
    "ExecutionContextAllocationStrategy", {"STATIC": 0, "ON_PROFILE_CHANGE": 1, "USER_MANAGED": 2}
)
PreviewFeature = enum.IntEnum("PreviewFeature", {"RUNTIME_ACTIVATION_RESIZE_10_10": 2})
BuilderFlag = enum.IntEnum("BuilderFlag", {"TF32": 7})
MemoryPoolType = enum.IntEnum("MemoryPoolType", {"WORKSPACE": 0})
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
TensorIOMode = enum.IntEnum("TensorIOMode", {"NONE": 0, "INPUT": 1, "OUTPUT": 2})
DataType = enum.IntEnum("DataType", {"FLOAT": 0, "HALF": 1, "INT8": 2, "INT32": 3})
TYPES = {onnx.TensorProto.FLOAT: DataType.FLOAT, onnx.TensorProto.FLOAT16: DataType.HALF}


def say(logger, severity, msg):
    assert isinstance(logger, ILogger)
    assert logger._made, "ILogger.__init__ was not called"
    logger.log(getattr(ILogger.Severity, severity), msg)


def tensors(values):
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
        yield ITensor(value.name, shape, TYPES[kind.elem_type])


class ITensor:
    def __init__(self, name, shape, dtype):
        self.name, self.shape, self.dtype = name, shape, dtype


class INetworkDefinition:
    __slots__ = ("_model", "_typed")

    def __init__(self, typed):
        self._model, self._typed = None, typed

    @property
    def num_inputs(self):
        return len(self._model.graph.input)

    def get_input(self, index):
        return list(tensors(self._model.graph.input))[index]


class IOptimizationProfile:
    __slots__ = ("_shapes",)

    def __init__(self):
        self._shapes = {}

    def set_shape(self, input, min, opt, max):
        if not all(0 <= low <= middle <= high for low, middle, high in zip(min, opt, max, strict=True)):
            raise ValueError("Shape provided for min is inconsistent with other shapes.")
        self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class ITimingCache:
    __slots__ = ("data",)

    def __init__(self, data):
        self.data = data

    def serialize(self):
        return memoryview(TIMINGS + bytes(f"{world.builds}", "ascii"))


class IBuilderConfig:
    __slots__ = ("_cache", "_flags", "_logger", "_pools", "_previews", "_profiles")

    def __init__(self, logger):
        self._logger, self._flags, self._pools, self._profiles, self._cache = logger, {BuilderFlag.TF32}, {}, [], None
        self._previews = set()

    def set_memory_pool_limit(self, pool, pool_size):
        self._pools[MemoryPoolType(pool)] = int(pool_size)

    def set_flag(self, flag):
        self._flags.add(BuilderFlag(flag))

    def clear_flag(self, flag):
        self._flags.discard(BuilderFlag(flag))

    def set_preview_feature(self, feature, enable):
        (self._previews.add if enable else self._previews.discard)(PreviewFeature(feature))

    def create_timing_cache(self, serialized_timing_cache):
        assert isinstance(serialized_timing_cache, bytes)
        if serialized_timing_cache and not serialized_timing_cache.startswith(TIMINGS):
            say(self._logger, "ERROR", "Timing cache is corrupt")
            return None
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        self._cache = cache
        return b"other GPU" not in cache.data

    def add_optimization_profile(self, profile):
        if "profile" in world.broken:
            say(self._logger, "ERROR", world.broken["profile"])
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1


class Builder:
    __slots__ = ("_logger",)

    def __init__(self, logger):
        if "builder" in world.broken:
            say(logger, "ERROR", world.broken["builder"])
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags=0):
        return INetworkDefinition(bool(flags & 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def create_builder_config(self):
        return IBuilderConfig(self._logger)

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        assert network._typed, "the network is not strongly typed"
        inputs = {value.name for value in network._model.graph.input}
        if len(config._profiles) != 1 or config._profiles[0]._shapes.keys() != inputs:
            say(self._logger, "ERROR", "Network has dynamic or shape inputs, but no optimization profile")
            return None
        if "build" in world.broken:
            say(self._logger, "WARNING", "Requested amount of GPU memory could not be allocated")
            say(self._logger, "ERROR", world.broken["build"])
            return None
        what = {
            "version": __version__,
            "shapes": config._profiles[0]._shapes,
            "tf32": BuilderFlag.TF32 in config._flags,
            "resized": bool(config._previews),
            "workspace": config._pools.get(MemoryPoolType.WORKSPACE),
            "build": world.builds,
        }
        world.builds += 1
        return memoryview(HEADER + json.dumps(what).encode() + b"\n" + network._model.SerializeToString())


class ParserError:
    __slots__ = ("_text",)

    def __init__(self, text):
        self._text = text

    def desc(self):
        return self._text

    def node_name(self):
        return "node 1"

    def node_operator(self):
        return "Conv"


class OnnxParser:
    __slots__ = ("_errors", "_logger", "_network")

    def __init__(self, network, logger):
        self._network, self._logger, self._errors = network, logger, []

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return ParserError(self._errors[index])

    def parse(self, model, path=None):
        try:
            self._network._model = onnx.load_model_from_string(model)
            onnx.checker.check_model(self._network._model)
        except Exception:
            self._errors.append("Failed to parse the ONNX model.")
            say(self._logger, "ERROR", "MODEL_DESERIALIZE_FAILED")
            return False
        return True


class Runtime(Counted):
    __slots__ = ("_logger",)

    def __init__(self, logger):
        if "runtime" in world.broken:
            say(logger, "ERROR", world.broken["runtime"])
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        head, _, model = serialized_engine.partition(b"\n")
        if not head.startswith(HEADER) or "load" in world.broken:
            say(self._logger, "ERROR", world.broken.get("load", "Serialization assertion stdVersionRead failed"))
            return None
        return ICudaEngine(json.loads(head.removeprefix(HEADER)), model, self._logger)


class ICudaEngine(Counted):
    __slots__ = ("_logger", "_model", "_tensors", "_what", "name")

    def __init__(self, what, model, logger):
        self._what, self._model, self._logger = what, model, logger
        graph = onnx.load_model_from_string(model).graph
        self._tensors = {
            tensor.name: (mode, tensor)
            for mode, values in ((TensorIOMode.INPUT, graph.input), (TensorIOMode.OUTPUT, graph.output))
            for tensor in tensors(values)
        }

    @property
    def num_io_tensors(self):
        return len(self._tensors)

    def get_tensor_name(self, index):
        return list(self._tensors)[index]

    def get_tensor_mode(self, name):
        return self._tensors[name][0]

    def get_tensor_shape(self, name):
        return self._tensors[name][1].shape

    def get_tensor_dtype(self, name):
        return self._tensors[name][1].dtype

    def get_tensor_profile_shape(self, name, profile_index):
        assert profile_index == 0
        return [tuple(shape) for shape in self._what["shapes"][name]]

    def create_execution_context(self, strategy=0):
        if "context" in world.broken:
            say(self._logger, "ERROR", world.broken["context"])
            return None
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED, "memory for the largest batch is taken"
        return IExecutionContext(self)


class IExecutionContext(Counted):
    __slots__ = ("_addresses", "_engine", "_session", "_shapes", "_working")

    def __init__(self, engine):
        self._engine, self._addresses, self._shapes, self._working = engine, {}, {}, None
        self._session = onnxruntime.InferenceSession(engine._model, providers=["CPUExecutionProvider"])

    def set_input_shape(self, name, shape):
        low, _, high = self._engine.get_tensor_profile_shape(name, 0)
        if len(shape) != len(low) or not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            say(self._engine._logger, "ERROR", f"Set dimension {list(shape)} for tensor {name} does not satisfy")
            return False
        if self._shapes.get(name) != tuple(shape):
            self._working = None
        self._shapes[name] = tuple(shape)
        return True

    def update_device_memory_size_for_shapes(self):
        inputs = {name for name, (mode, _) in self._engine._tensors.items() if mode == TensorIOMode.INPUT}
        assert self._shapes.keys() == inputs, "shapes are missing"
        self._working = None
        resized = self._engine._what["resized"]
        return WORKING * (self._shapes["input"] if resized else self._engine._what["shapes"]["input"][2])[0]

    def set_device_memory(self, memory, size):
        assert memory % 256 == 0
        self._working = (memory, size)

    def set_tensor_address(self, name, memory):
        assert memory > 0
        assert memory % 4 == 0
        self._addresses[name] = memory
        return name in self._engine._tensors

    def execute_async_v3(self, stream_handle):
        assert stream_handle, "the default stream"
        assert self._addresses.keys() == self._engine._tensors.keys()
        assert self._working, "there is no memory to work in"
        assert self._working[1] >= WORKING * self._shapes["input"][0]
        if "run" in world.broken:
            say(self._engine._logger, "ERROR", world.broken["run"])
            return False
        if world.stream is None:
            self._execute(dict(self._shapes))
        else:
            shapes = dict(self._shapes)
            world.stream.append(lambda: self._execute(shapes))
        return True

    def _execute(self, shapes):
        ctypes.memset(*self._working[:1], 0xAB, self._working[1])
        feeds = {name: self._view(name, shape).copy() for name, shape in shapes.items()}
        names = [output.name for output in self._session.get_outputs()]
        for name, array in zip(names, self._session.run(names, feeds), strict=True):
            self._view(name, array.shape)[...] = array

    def _view(self, name, shape):
        cells = (ctypes.c_float * int(np.prod(shape))).from_address(self._addresses[name])
        return np.frombuffer(cells, np.float32).reshape(shape)
