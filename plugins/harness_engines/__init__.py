"""Built-in engines: `hf` (any causal language model of transformers) and `tabular` (exact truth by enumeration)."""
