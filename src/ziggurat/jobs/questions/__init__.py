"""What each command does with a model of questions."""
