"""`python -m ziggurat`, which `accelerate launch -m` also calls."""

from ziggurat.cli import main

main()
