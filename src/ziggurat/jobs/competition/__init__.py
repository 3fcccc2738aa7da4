"""`bench --peers`: our engine beside those that a user would pick instead."""
