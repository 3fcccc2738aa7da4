"""Answers for others: of texts and files, with a monitor beside."""
