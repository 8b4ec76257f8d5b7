"""Alembic's entry: runs the versions on the connection that `db.schema` hands over."""

from alembic import context

from db.models import Base
from db.schema import VERSION_TABLE, only_ours

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    include_name=only_ours,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
