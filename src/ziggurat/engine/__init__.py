"""Engine room: runs a model adaptively; `simple` is the specification. No torch but in `torch_backend`."""
