"""The REST service: what HTTP clients see of studies, and the refusals they get."""
