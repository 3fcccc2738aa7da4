"""Engine room: runs a model adaptively. `simple` is the specification; the fast ones must equal it. No torch but in `torch_backend`."""
