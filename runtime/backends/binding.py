"""A graph whose inputs and outputs stay where it computes: buffers for each size of a batch, and CUDA graphs."""

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
"""Sizes of a batch that keep their buffers: what a CUDA graph was captured in is never another's."""
GRAPH, NO_GRAPH = "gpu_graph_id", -1
"""The setting of a run that says which graph it captures or replays, and the one for none."""
HELD = 256
"""Replays of a size of which one is held to a run without a graph."""


class Bound:
    """A session of ONNX Runtime that is asked through buffers on its device.

    A CUDA graph replays what it captured, whatever happened since. So it is believed only once it has answered another
    batch than the captured one to the bit as a run without it does, which itself must answer twice alike; it is held to
    such a run again every HELD passes and whenever `hold` is called, and never replayed again once memory ran out.

    Args:
        role: of the graph, in log lines.
        session: ONNX Runtime's.
        device: where it computes: 'cuda', or 'cpu'.
        captures: whether the session captures CUDA graphs where it is asked to.

    """

    def __init__(self, role: str, session: Any, device: str, *, captures: bool) -> None:
        self._role = role
        self._session = session
        self._device = device
        self._captures = captures
        self._plain = _options(NO_GRAPH) if captures else None
        self._buffers: dict[tuple[tuple[int, ...], ...], tuple[_Buffers, Any]] = {}

    def run(self, outputs: Sequence[str], feeds: dict[str, Any], options: Any = None) -> list[Any]:
        """Return the outputs named, as new arrays of the library that the inputs are of.

        Args:
            outputs: their names, the same each time.
            feeds: float32 arrays by name, the same names each time, a row an image.
            options: of the run; by default those that the size was captured with.

        Raises:
            BadModel: a replay answers otherwise than the run without it.

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
        """Run without buffers that are kept: arrays of NumPy are copied to and fro, as ONNX Runtime does."""
        if all(map(is_numpy_array, feeds.values())):
            found: list[Any] = self._session.run(list(outputs), feeds, options)
            return found
        return _Buffers(self._session, self._device, feeds, outputs, options).ask(feeds, options)

    def hold(self) -> None:
        """Hold every size that was replayed since it last was to a run without a graph, on what it was last asked.

        Raises:
            BadModel: it answers otherwise, or cannot be asked, so that what it answered before is in doubt.

        """
        try:
            for buffers, _ in self._buffers.values():
                self._hold(buffers)
        except BadModel:
            raise
        except Exception as error:  # ONNX Runtime's own errors share no base but this one
            raise self._doubt(f"cannot be compared with its kernels again ({first_line(error)})") from None

    def let_go(self) -> None:
        """Give the buffers back, and replay no graph again: the memory that it stands on may be another's now.

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
        """Return the options of a run that replays a graph; those of a plain one where there is none to believe."""
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
    """What a batch of one size is read from and written to, at the same place every time.

    Attributes:
        asked: how often.
        unheld: whether a graph was replayed since it was last held to a run without one.

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
        session.run_with_iobinding(self._binding, options)  # says the shapes
        self._outputs = [made(list(value.shape())) for value in self._binding.get_outputs()]
        for name, value in zip(outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    def ask(self, feeds: dict[str, Any], options: Any) -> list[Any]:
        """Run on these arrays; return copies of what it wrote."""
        self.asked += 1
        self._fill(feeds)
        self._session.run_with_iobinding(self._binding, options)
        like = feeds[INPUT]
        return [_copied(value, like) for value in self._outputs]

    def left(self) -> list[Any]:
        """Return what the last run wrote, as arrays of NumPy."""
        return [value.numpy().copy() for value in self._outputs]

    def again(self, options: Any) -> list[Any]:
        """Run on what was last fed; return what it wrote, as arrays of NumPy."""
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
        if not is_numpy_array(like):  # what one number of it is, is known once all before it is done
            float(_shared(self._inputs[INPUT], like)[(0,) * like.ndim])


def _same(ours: list[Any], theirs: list[Any]) -> bool:
    """Return whether two answers are equal, NaN to NaN too: that is another's to refuse."""
    return all(
        bool(array_namespace(one).all((one == other) | ((one != one) & (other != other))))
        for one, other in zip(ours, theirs, strict=True)
    )


def _copied(value: Any, like: Any) -> Any:
    if is_numpy_array(like):
        return value.numpy().copy()  # on the CPU it is the buffer itself
    return array_namespace(like).asarray(_shared(value, like), copy=True)


def _shared(value: Any, like: Any) -> Any:
    """Return ONNX Runtime's value as an array of another library, in the same memory."""
    return array_namespace(like).from_dlpack(value._ortvalue)


def _others(name: str, array: Any) -> Any:
    """Return what another batch might feed: other images, classes and loss, also where all rows are alike."""
    xp = array_namespace(array)
    return 1 - xp.roll(array, 1, axis=0) if name == INPUT else xp.roll(array, (1, 1), axis=(0, -1))


def _options(graph: int) -> Any:
    options = load_onnxruntime().RunOptions()
    options.add_run_config_entry(GRAPH, str(graph))
    return options
