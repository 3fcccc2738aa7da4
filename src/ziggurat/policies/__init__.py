"""Policy room: pure functions, arrays in, scores out. A policy compares nothing and shortens nothing. No torch."""
