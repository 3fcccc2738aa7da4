"""`bench --profile`: what the parts of a call take on this machine."""
