"""`report`: the papers' analyses."""
