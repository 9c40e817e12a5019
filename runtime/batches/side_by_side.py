"""Jobs that share one session: their questions are joined, so that its batches stay full.

Each job runs in a thread of its own and asks as if it were alone. Only the caller's thread asks the session, with all
waiting questions in one batch. Two groups of jobs take turns: while one waits for its answer, the other computes. A job
starts as soon as there is room for it. The batches follow from the jobs alone, and not from timing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import cycle
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from array_api_compat import array_namespace

from runtime.session import LossSpec, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from runtime.session import SessionCard

MOST = 16
"""The most jobs of a group at a time."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Asking(Generic[Result]):
    """A job that asks a session.

    Args:
        images: the most rows in one of its questions.
        work: the job, a function of the session that it may ask.

    """

    images: int
    work: Callable[[Session], Result]


def side_by_side(session: Session, jobs: Sequence[Asking[Result]], rows: int) -> Generator[Result]:
    """Yield the jobs' results, in the order of the jobs.

    A job's error is raised in the place of its result; an error of the session is raised at once. Closing the
    generator stops the jobs that still run.

    Args:
        session: its answer to an image must not depend on the other images of the batch.
        jobs: the jobs.
        rows: the most images that the session is asked at once.

    """
    waiting = deque(_Running(job, session.card()) for job in jobs)
    to_yield = deque(waiting)
    groups: tuple[list[_Running[Result]], ...] = ([], [])
    try:
        for group in cycle(groups):
            for running in group:
                running.listen()
            group[:] = [running for running in group if running.question]
            while waiting and len(group) < MOST and _has_room(group, waiting[0], rows):
                waiting[0].start()
                waiting[0].listen()
                group += [waiting[0]] if waiting[0].question else []
                waiting.popleft()
            _answer(session, group, rows)
            while to_yield and to_yield[0].ended:
                yield to_yield.popleft().result()
            if not to_yield:
                return
    finally:
        for running in to_yield:
            running.stop()


class _Question(NamedTuple):
    x: Any
    loss: LossSpec | None

    @property
    def rows(self) -> int:
        return int(self.x.shape[0])


class _Stopped(BaseException):
    """Raised in a job's thread, in place of an answer, to end it."""


class _Running(Session, Generic[Result]):
    """A job, and the session that it sees.

    Attributes:
        question: its question that waits for an answer; None if it has none.
        ended: whether it is done; then `result` returns its result or raises its error.
        images: the rows of the larger of its last two questions, because every second question may be small.

    """

    def __init__(self, job: Asking[Result], card: SessionCard) -> None:
        self.question: _Question | None = None
        self.ended = False
        self._job, self._card = job, card
        self._sizes = deque([job.images], maxlen=2)
        self._asked: SimpleQueue[_Question | None] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._thread = Thread(target=self._run, daemon=True)
        self._result: Result
        self._error: BaseException | None = None

    @property
    def images(self) -> int:
        return max(self._sizes)

    def logits(self, x: Any) -> Any:
        return self._ask(_Question(x, None))

    def loss_gradient(self, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        z, value, gradient = self._ask(_Question(x, loss))
        return z, value, gradient

    def card(self) -> SessionCard:
        return self._card

    def start(self) -> None:
        self._thread.start()

    def listen(self) -> None:
        """Wait until the job asks or ends."""
        self.question = self._asked.get()
        if self.question is None:
            self.ended = True
            self._thread.join()
        else:
            self._sizes.append(self.question.rows)

    def answer(self, answer: Any) -> None:
        """Give the job the answer to its question, so that it continues."""
        self.question = None
        self._answers.put(answer)

    def stop(self) -> None:
        """End the job's thread, at its next or current question."""
        if self._thread.is_alive():
            self._answers.put(_Stopped())
            self._thread.join()

    def result(self) -> Result:
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._job.work(self)
        except _Stopped:
            return
        except BaseException as error:  # `result` raises it again
            self._error = error
        self._asked.put(None)

    def _ask(self, question: _Question) -> Any:
        self._asked.put(question)
        answer = self._answers.get()
        if isinstance(answer, _Stopped):
            raise answer
        return answer


def _has_room(group: Sequence[_Running[Any]], job: _Running[Any], rows: int) -> bool:
    return not group or sum(each.images for each in group) + job.images <= rows


def _answer(session: Session, group: Sequence[_Running[Any]], rows: int) -> None:
    """Answer the questions of a group, those with a loss separately, and give each job its rows."""
    for with_loss in (False, True):
        asking = [each for each in group if each.question and (each.question.loss is not None) is with_loss]
        for part in _parts(asking, rows):
            questions = [each.question for each in part if each.question]
            answers = _ask(session, questions)
            start = 0
            for each, question in zip(part, questions, strict=True):
                stop = start + question.rows
                mine = tuple(array[start:stop, ...] for array in answers)
                each.answer(mine if with_loss else mine[0])
                start = stop


def _parts(asking: Sequence[_Running[Any]], rows: int) -> Iterator[list[_Running[Any]]]:
    """Yield the jobs in order, in parts that together ask about at most `rows` images; a single job may exceed it."""
    part: list[_Running[Any]] = []
    n = 0
    for each in asking:
        size = each.question.rows if each.question else 0
        if part and n + size > rows:
            yield part
            part, n = [], 0
        part.append(each)
        n += size
    if part:
        yield part


def _ask(session: Session, questions: Sequence[_Question]) -> tuple[Any, ...]:
    x = _joined([question.x for question in questions])
    losses = [vars(question.loss) for question in questions if question.loss is not None]
    if not losses:
        return (session.logits(x),)
    return session.loss_gradient(x, LossSpec(**{name: _joined([loss[name] for loss in losses]) for name in losses[0]}))


def _joined(arrays: list[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else array_namespace(arrays[0]).concat(arrays)
