"""The other engines, behind one interface."""
