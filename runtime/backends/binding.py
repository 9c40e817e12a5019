"""A graph whose inputs and outputs stay on its device: buffers for each batch size, and CUDA graphs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from runtime.backends.providers import is_memory, load_onnxruntime
from runtime.errors import BadModel, first_line
from runtime.session import INPUT
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_SIZES = 32
"""The most batch sizes that keep buffers. The buffers in which a CUDA graph was captured serve nothing else."""
GRAPH, NO_GRAPH = "gpu_graph_id", -1
"""The run setting that names the graph to capture or replay, and its value for none."""
HELD = 256
"""One in this many replays of a batch size is compared with a run without a graph."""


class Bound:
    """A session of ONNX Runtime that reads and writes buffers on its device.

    A CUDA graph replays what it captured, whatever happened since. So it is used only after a test on a batch other
    than the captured one: two plain runs must agree bit for bit, and the replay must agree with them. It is compared
    with a plain run again every HELD passes and in `hold`, and is never replayed after memory ran out.

    Args:
        role: the graph's name in log lines.
        session: ONNX Runtime's session.
        device: where it computes, 'cuda' or 'cpu'.
        captures: whether the session was opened so that it can capture CUDA graphs.

    """

    def __init__(self, role: str, session: Any, device: str, *, captures: bool) -> None:
        self._role = role
        self._session = session
        self._device = device
        self._captures = captures
        self._plain = _options(NO_GRAPH) if captures else None
        self._buffers: dict[tuple[tuple[int, ...], ...], tuple[_Buffers, Any]] = {}

    def run(self, outputs: Sequence[str], feeds: dict[str, Any], options: Any = None) -> list[Any]:
        """Return the named outputs, as new arrays of the inputs' library.

        Args:
            outputs: names of outputs, the same in every call.
            feeds: float32 arrays by name, one row per image; the same names in every call.
            options: of the run; by default those with which this batch size was captured.

        Raises:
            BadModel: a replay differs from a run without the graph.

        """
        size = tuple(tuple(array.shape) for array in feeds.values())
        if size not in self._buffers:
            if len(self._buffers) == MOST_SIZES:
                return self._run_once(outputs, feeds, options or self._plain)
            buffers = _Buffers(self._session, self._device, feeds, outputs, options or self._plain)
            self._buffers[size] = buffers, self._captured(buffers, feeds, len(self._buffers) + 1)
        buffers, captured = self._buffers[size]
        answer = buffers.ask(feeds, options or captured)
        if self._captures:
            buffers.unheld = True
            if buffers.asked % HELD == 0:
                self._hold(buffers)
        return answer

    def _run_once(self, outputs: Sequence[str], feeds: dict[str, Any], options: Any) -> list[Any]:
        """Run without keeping buffers. ONNX Runtime copies NumPy arrays to the device and back."""
        if all(map(is_numpy_array, feeds.values())):
            found: list[Any] = self._session.run(list(outputs), feeds, options)
            return found
        return _Buffers(self._session, self._device, feeds, outputs, options).ask(feeds, options)

    def hold(self) -> None:
        """Compare the last replay of each batch size with a plain run on the same inputs, unless that was done already.

        Raises:
            BadModel: they differ, or the comparison fails, so that earlier answers are in doubt.

        """
        try:
            for buffers, _ in self._buffers.values():
                self._hold(buffers)
        except BadModel:
            raise
        except Exception as error:  # ONNX Runtime's own errors share no base but this one
            raise self._doubt(f"cannot be compared with its kernels again ({first_line(error)})") from None

    def let_go(self) -> None:
        """Free the buffers, and replay no graph again: its memory may now be used for something else.

        Raises:
            BadModel: see `hold`.

        """
        self.hold()
        self._buffers.clear()
        if self._captures:
            self._give_up("memory ran out")

    def _hold(self, buffers: _Buffers) -> None:
        if buffers.unheld and not _same(buffers.left(), buffers.again(self._plain)):
            raise self._doubt("gives other answers than its kernels")
        buffers.unheld = False

    def _doubt(self, what: str) -> BadModel:
        return BadModel(
            f"a CUDA graph of the {self._role} {what}: the results are in doubt",
            hint="start again with another --out and --provider cpu; please report GPU, driver and ONNX Runtime",
        )

    def _captured(self, buffers: _Buffers, feeds: dict[str, Any], number: int) -> Any:
        """Return the options that replay a graph which passed its test, or else the options of a plain run."""
        if not self._captures:
            return self._plain
        graph = _options(number)
        try:
            buffers.ask(feeds, graph)
            other = {name: _others(name, array) for name, array in feeds.items()}
            first, second, replayed = (buffers.ask(other, each) for each in (self._plain, self._plain, graph))
        except Exception as error:  # ONNX Runtime's own errors share no base but this one
            if is_memory(error):
                raise
            return self._give_up(first_line(error))
        if not _same(first, second):
            return self._give_up("its kernels give different answers to the same batch")
        return graph if _same(first, replayed) else self._give_up("a replay gives other answers")

    def _give_up(self, reason: str) -> Any:
        log.info(f"the {self._role} runs without CUDA graphs: {reason}")
        self._captures = False
        self._buffers = {size: (buffers, self._plain) for size, (buffers, _) in self._buffers.items()}
        return self._plain


class _Buffers:
    """The inputs and outputs of a batch of one size, always at the same addresses.

    Attributes:
        asked: the number of runs through `ask`.
        unheld: whether a graph may have been replayed since the last comparison with a plain run.

    """

    def __init__(self, session: Any, device: str, feeds: dict[str, Any], outputs: Sequence[str], options: Any) -> None:
        made = partial(
            load_onnxruntime().OrtValue.ortvalue_from_shape_and_type, element_type=np.float32, device_type=device
        )
        self.asked, self.unheld = 0, False
        self._session = session
        self._binding = session.io_binding()
        self._inputs = {name: made(list(array.shape)) for name, array in feeds.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in outputs:
            self._binding.bind_output(name, device)
        self._fill(feeds)
        session.run_with_iobinding(self._binding, options)  # to learn the shapes of the outputs
        self._outputs = [made(list(value.shape())) for value in self._binding.get_outputs()]
        for name, value in zip(outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    def ask(self, feeds: dict[str, Any], options: Any) -> list[Any]:
        """Run on these arrays; return copies of the outputs."""
        self.asked += 1
        self._fill(feeds)
        self._session.run_with_iobinding(self._binding, options)
        like = feeds[INPUT]
        return [_copied(value, like) for value in self._outputs]

    def left(self) -> list[Any]:
        """Return the outputs of the last run, as NumPy arrays."""
        return [value.numpy().copy() for value in self._outputs]

    def again(self, options: Any) -> list[Any]:
        """Run on the last inputs again; return the outputs, as NumPy arrays."""
        self._session.run_with_iobinding(self._binding, options)
        return self.left()

    def _fill(self, feeds: dict[str, Any]) -> None:
        for name, value in self._inputs.items():
            array = feeds[name]
            if is_numpy_array(array):
                value.update_inplace(array)
            else:
                _shared(value, array)[...] = array
        like = feeds[INPUT]
        if not is_numpy_array(like):  # reading one number waits until the copy above is done
            float(_shared(self._inputs[INPUT], like)[(0,) * like.ndim])


def _same(ours: list[Any], theirs: list[Any]) -> bool:
    """Return whether two answers are equal. NaN equals NaN here; the oracle refuses it later."""
    return all(
        bool(array_namespace(one).all((one == other) | ((one != one) & (other != other))))
        for one, other in zip(ours, theirs, strict=True)
    )


def _copied(value: Any, like: Any) -> Any:
    if is_numpy_array(like):
        return value.numpy().copy()  # on the CPU, numpy() is a view of the buffer
    return array_namespace(like).asarray(_shared(value, like), copy=True)


def _shared(value: Any, like: Any) -> Any:
    """Return ONNX Runtime's value as an array of `like`'s library that shares its memory."""
    return array_namespace(like).from_dlpack(value._ortvalue)


def _others(name: str, array: Any) -> Any:
    """Return an input that differs from `array`, as another batch's would, even if all its rows are equal."""
    xp = array_namespace(array)
    return 1 - xp.roll(array, 1, axis=0) if name == INPUT else xp.roll(array, (1, 1), axis=(0, -1))


def _options(graph: int) -> Any:
    options = load_onnxruntime().RunOptions()
    options.add_run_config_entry(GRAPH, str(graph))
    return options
