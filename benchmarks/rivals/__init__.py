"""The searches that people run today, as they are set by those who published them: one file each."""
