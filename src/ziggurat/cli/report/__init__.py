"""`ziggurat report`: the papers' analyses, each a table and a figure in a folder."""
