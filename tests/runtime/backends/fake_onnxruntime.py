"""onnxruntime-gpu on the CPU: its providers, its buffers and its CUDA graphs."""

import onnxruntime

from runtime.backends.binding import GRAPH, NO_GRAPH
from runtime.backends.ort import OrtSession
from runtime.machine.driver import CudaDevice
from runtime.session import INPUT

GPU = CudaDevice("Orin", "ab" * 16, "8.7", "12.6", memory=64 * 2**30)
CPU = "CPUExecutionProvider"


class FakeCard:
    """ONNX Runtime's CUDA and TensorRT providers, over its CPU provider.

    `graphs`: how it is with CUDA graphs, see `FakeSession`; "refused" where no session takes them. `opened` holds the
    options of every session, `sessions` what keeps what it was asked.
    """

    def __init__(self, graphs="sound"):
        self.graphs, self.opened, self.sessions, self.values = graphs, [], [], FakeValues()
        self._real = onnxruntime.InferenceSession

    def open(self, model, settings, providers, **named):
        [(name, options)] = providers
        if name == CPU:
            return self._real(model, settings, providers=providers, **named)
        assert all(isinstance(value, str) for value in options.values())
        self.opened.append(options)
        captures = options.get("enable_cuda_graph") == "1"
        if captures and self.graphs == "refused":
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        session = self._real(model, providers=[CPU])
        self.sessions.append(FakeSession(session, [name, CPU], self.graphs if captures else None))
        return self.sessions[-1]


class FakeValues:
    """OrtValue: what is made on the GPU lies in the CPU's memory."""

    def __init__(self):
        self.made = []
        self._real = onnxruntime.OrtValue

    def ortvalue_from_shape_and_type(self, shape, element_type, device_type):
        self.made.append(tuple(shape))
        return self._real.ortvalue_from_shape_and_type(shape, element_type, "cpu")


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

    `graphs`: None, "sound", "stale" (a replay answers what was captured), "stale labels" (it reads the labels that were
    captured), "fails" (nothing can be captured) or "shaky" (nothing answers twice alike). `fitting`: images that the
    memory holds at once; None for any number.
    """

    def __init__(self, session, providers, graphs):
        self.real, self.providers, self.graphs = session, providers, graphs
        self.captured, self.asked, self.fitting = {}, [], None

    def __getattr__(self, name):
        assert name in ("get_inputs", "get_outputs")
        return getattr(self.real, name)

    def get_providers(self):
        return self.providers

    def io_binding(self):
        return FakeBinding(self.real.io_binding())

    def run(self, outputs, feeds, options=None):
        assert self.graphs is None or setting(options, GRAPH) == str(NO_GRAPH), "buffers that move cannot be captured"
        self._note(options, len(feeds[INPUT]))
        return self.real.run(outputs, feeds)

    def run_with_iobinding(self, binding, options=None):
        graph = self._note(options, binding.inputs[INPUT].shape()[0])
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
            self.captured[graph] = binding, copied(binding.outputs), copied(binding.inputs)
            return None
        at, answer, fed = self.captured[graph]
        assert at is binding, "a graph writes to where it was captured"
        if self.graphs == "stale":
            return [binding.outputs[name].update_inplace(array) for name, array in answer.items()]
        if self.graphs == "stale labels" and "label" in fed:
            binding.inputs["label"].update_inplace(fed["label"])
        return self.real.run_with_iobinding(binding.real)

    def _note(self, options, images):
        graph = setting(options, GRAPH)
        self.asked.append(graph)
        if self.fitting is not None and images > self.fitting:
            raise RuntimeError("Available memory of 0 is smaller than requested bytes: failed to allocate memory")
        return graph


def copied(values):
    """Return what OrtValues hold, by name, as arrays of their own."""
    return {name: value.numpy().copy() for name, value in values.items()}


def setting(options, name):
    """Return an entry of a run's options; None where there is none."""
    try:
        return options.get_run_config_entry(name) if options else None
    except RuntimeError:
        return None


def open_(files, provider, place, **changes):
    graphs = files["model.fp32.onnx"], files["model.fp32.grad.onnx"]
    return OrtSession(*graphs, precision="fp32", provider=provider, state=place, **changes)
