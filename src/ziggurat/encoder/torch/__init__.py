"""All of the encoder that needs torch."""
