"""OpenVINO: its library, and a session of a graph that it compiles."""
