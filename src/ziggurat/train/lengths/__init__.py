"""The search for the shares of tokens that a length-adaptive model keeps."""
