"""Judge graphs in a process of its own: an engine that crashes on one ends this process, not the tests.

Reads jobs from stdin (two graphs, each after its length in eight bytes) and answers each with a line on stdout.
"""

import os
import resource
import sys
import warnings

from runtime.backends.ort import OrtSession
from runtime.errors import EdgeproofError
from runtime.images.image_set import ImageSet
from runtime.terminal.progress import Silent
from runtime.verdict.case import Subject, VerifyOptions, verify
from tests.tiny import SHAPE, linear_task

MEMORY = 8 * 2**30
"""Address space: a graph that asks for more is refused by the system, as on a device."""


def judge(forward, gradient):
    """Return the verdict on a pair of graphs, or the name of the typed error."""
    _, _, images, labels = linear_task(n=6)
    try:
        session = OrtSession(forward, gradient, precision="fp32", threads=1)
        subject = Subject(session, "mutated", ("a", "b", "c"), SHAPE, ImageSet("six", images, labels, labels), "")
        run = verify(subject, VerifyOptions(attacks=("fgsm",), eps=0.01, no_gate=True), Silent())
    except EdgeproofError as error:
        return type(error).__name__
    return run.report.verdict


def main():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints is no answer
    jobs = sys.stdin.buffer
    while size := jobs.read(8):
        forward = jobs.read(int.from_bytes(size, "little"))
        gradient = jobs.read(int.from_bytes(jobs.read(8), "little"))
        answers.write(f"{judge(forward, gradient)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
