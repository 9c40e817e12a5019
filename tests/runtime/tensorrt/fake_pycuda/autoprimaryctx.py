"""The device's primary context, current in the thread that imports this."""

import atexit

from pycuda import driver

context = driver.Context()
context.push()
atexit.register(context.pop)
