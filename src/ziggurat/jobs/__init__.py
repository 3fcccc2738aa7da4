"""Jobs: what each command does, as a function that returns its result. The command line only parses and prints."""
