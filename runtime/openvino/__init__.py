"""OpenVINO as a backend: the library, and a session of a compiled graph."""
