"""A message as the worker's parent process sees it: over when it is taken; it hears when the child dies of it."""

from typing import Any

from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from workers.task import owner_of


class EvaluationRequest(Request):  # type: ignore[misc]  # celery has no types
    """Tells the worker's keeper of a child that died at work."""

    def acknowledge(self) -> None:
        """Nothing to tell Redis: the queue is read without acknowledgement."""
        self.acknowledged = True

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """The child died, or its task raised, which it does not do."""
        super().on_failure(exc_info, *args, **kwargs)
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # it may come wrapped with its traceback
        if isinstance(error, WorkerLostError | SystemExit):
            how = str(error).removeprefix("Worker exited prematurely: ").partition(" Job:")[0]
            self._app.keeper.died(self.owner, how)

    @property
    def owner(self) -> str:
        """Whose the lease is that the message led to."""
        return owner_of(self._app.conf.mergesearch.name, self.worker_pid)
