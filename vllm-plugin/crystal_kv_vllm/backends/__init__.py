"""vLLM's attention backends with holes in their block tables; one module each, imported only when it is chosen."""
