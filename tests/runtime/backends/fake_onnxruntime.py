"""onnxruntime-gpu on the CPU: its providers, its buffers and its CUDA graphs."""

import os
import types

import onnxruntime

from runtime.backends.binding import GRAPH, NO_GRAPH
from runtime.backends.ort import OrtSession
from runtime.machine.driver import CudaDevice
from runtime.machine.tf32 import SWITCH

GPU = CudaDevice("Orin", "ab" * 16, "8.7", "12.6", memory=64 * 2**30)
CPU = "CPUExecutionProvider"


class FakeRuntime(types.ModuleType):
    """onnxruntime-gpu on the CPU: strict in what it is given.

    `works`: providers that do; `leaves`: whether single nodes stay on the CPU; `graphs`: how it is with CUDA graphs,
    of which `sessions` keep what they were asked.
    """

    SessionOptions, RunOptions = onnxruntime.SessionOptions, onnxruntime.RunOptions

    def __init__(self, works, leaves=False, graphs="sound"):
        super().__init__("onnxruntime")
        self.works, self.leaves, self.graphs, self.opened, self.sessions = works, leaves, graphs, [], []
        self.OrtValue = FakeValues()

    def set_default_logger_severity(self, severity):
        assert severity == 4

    def get_available_providers(self):
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU]

    def InferenceSession(self, graph, sess_options, providers, disabled_optimizers, enable_fallback):
        [(name, options)] = providers
        assert all(isinstance(value, str) for value in options.values())
        assert disabled_optimizers == (None if name == CPU else ["WeightBiasQuantization"])
        self.opened.append((name, options, os.environ.get(SWITCH)))
        strict = sess_options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        works = name in self.works
        if strict and (self.leaves or not works):
            if works:
                raise RuntimeError("This session contains graph nodes that are assigned to the default CPU EP")
            strict = False  # a provider that cannot even be made is dropped before this is looked at
        captures = options.get("enable_cuda_graph") == "1"
        if captures and self.graphs == "refused":
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        session = onnxruntime.InferenceSession(graph, providers=[CPU])
        self.sessions.append(FakeSession(session, [name, CPU] if works else [CPU], self.graphs if captures else None))
        return self.sessions[-1]


class FakeValues:
    """OrtValue: what is made on the GPU lies in the CPU's memory; how many are alive is counted by size."""

    def __init__(self):
        self.made = []

    def ortvalue_from_shape_and_type(self, shape, element_type, device_type):
        assert device_type == "cuda"
        self.made.append(tuple(shape))
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, element_type, "cpu")


class FakeBinding:
    """An IOBinding of a session on the GPU."""

    def __init__(self, binding):
        self.real, self.inputs, self.outputs = binding, {}, {}

    def bind_ortvalue_input(self, name, value):
        self.inputs[name] = value
        self.real.bind_ortvalue_input(name, value)

    def bind_ortvalue_output(self, name, value):
        self.outputs[name] = value
        self.real.bind_ortvalue_output(name, value)

    def bind_output(self, name, device_type):
        assert device_type == "cuda"
        self.real.bind_output(name, "cpu")

    def get_outputs(self):
        return self.real.get_outputs()


class FakeSession:
    """A session that replays CUDA graphs as ONNX Runtime does: into the buffers that they were captured with.

    `graphs`: None, "sound", "stale" (a replay answers what was captured), "fails" (nothing can be captured) or "shaky"
    (nothing answers twice alike).
    """

    def __init__(self, session, providers, graphs):
        self.real, self.providers, self.graphs = session, providers, graphs
        self.captured, self.asked, self.full = {}, [], False

    def __getattr__(self, name):
        assert name in ("get_inputs", "get_outputs")
        return getattr(self.real, name)

    def get_providers(self):
        return self.providers

    def io_binding(self):
        return FakeBinding(self.real.io_binding())

    def run(self, outputs, feeds, options=None):
        assert self.graphs is None or setting(options, GRAPH) == str(NO_GRAPH), "buffers that move cannot be captured"
        self._note(options)
        return self.real.run(outputs, feeds)

    def run_with_iobinding(self, binding, options=None):
        graph = self._note(options)
        if self.graphs == "shaky" and binding.outputs:
            self.real.run_with_iobinding(binding.real)
            return [value.update_inplace(value.numpy() + len(self.asked)) for value in binding.outputs.values()]
        if self.graphs is None or graph == str(NO_GRAPH):
            return self.real.run_with_iobinding(binding.real)
        assert graph is not None, "without an id it captures a graph of its own"
        if self.graphs == "fails":
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")
        if graph not in self.captured:
            self.real.run_with_iobinding(binding.real)
            self.captured[graph] = binding, {name: value.numpy().copy() for name, value in binding.outputs.items()}
            return None
        at, answer = self.captured[graph]
        assert at is binding, "a graph writes to where it was captured"
        if self.graphs == "stale":
            return [binding.outputs[name].update_inplace(array) for name, array in answer.items()]
        return self.real.run_with_iobinding(binding.real)

    def _note(self, options):
        graph = setting(options, GRAPH)
        self.asked.append(graph)
        if self.full:
            raise RuntimeError("Available memory of 0 is smaller than requested bytes: failed to allocate memory")
        return graph


def setting(options, name):
    """Return an entry of a run's options; None where there is none."""
    try:
        return options.get_run_config_entry(name) if options else None
    except RuntimeError:
        return None


def open_(files, provider, place, **changes):
    graphs = files["model.fp32.onnx"], files["model.fp32.grad.onnx"]
    return OrtSession(*graphs, precision="fp32", provider=provider, state=place, **changes)
