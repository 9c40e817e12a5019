"""python -m tests.faults --out DIR: faults at scale, and a report of what was injected where."""

from tests.faults.command import main

main()
