"""Which trials are worth more documents. A policy decides, the controller acts."""
