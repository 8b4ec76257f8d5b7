"""The service's processes: what each is made of and how it is started."""
