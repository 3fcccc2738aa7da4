"""Engine room: runs a model adaptively; `reference` is the specification. No torch but in `backends/torch*`."""
