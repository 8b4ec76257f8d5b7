"""The remote half of the command line: a client of the REST service, without torch, SQLAlchemy or Optuna."""

LOCAL_SERVER = "http://127.0.0.1:8000"  # where `mergesearch serve` listens unless told otherwise
