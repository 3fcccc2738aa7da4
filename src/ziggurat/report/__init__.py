"""Report room: clocks, rows, tables, figures. No torch."""
