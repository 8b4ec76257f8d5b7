"""A served language model proposes what to try next; TPE stands in where it does not."""
