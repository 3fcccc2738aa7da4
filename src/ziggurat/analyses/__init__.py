"""The papers' tables and figures, for any model."""
