"""Numbers that only grow, for the metrics."""

from sqlalchemy import update
from sqlalchemy.orm import Session

from db.models import CounterRow


def count(session: Session, name: str, amount: float) -> None:
    """Add to a counter that the schema has; for use inside a caller's transaction."""
    session.execute(
        update(CounterRow)
        .where(CounterRow.name == name)
        .values(value=CounterRow.value + amount)
        .execution_options(synchronize_session=False)
    )
