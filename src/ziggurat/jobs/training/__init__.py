"""`train`, `adapt` and `cascade`: from rows and a backbone to a model folder."""
