"""Text in and out of models: tokenizers and data sets."""
