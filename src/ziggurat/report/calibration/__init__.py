"""The page of a calibration: its data, tables, figure and words."""
