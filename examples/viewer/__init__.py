"""The parts of `examples/live_viewer.py`: a session (pure logic), a painter, and thin windows."""
