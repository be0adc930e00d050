"""Words, columns and colours: result objects in, text or JSON out."""
