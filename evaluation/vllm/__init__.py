"""vLLM as the one that answers: candidates are built beside its engine and handed over to it."""
