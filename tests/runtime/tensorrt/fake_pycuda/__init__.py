"""PyCUDA as far as edgeproof touches it; test_pycuda.py holds it against the real one."""
