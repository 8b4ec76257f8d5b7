"""stopping: for how long a study was searched, and why its search is over"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("merge_study", schema=None) as batch_op:
        batch_op.add_column(sa.Column("searched_seconds", sa.Double(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("ended", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("merge_study", schema=None) as batch_op:
        batch_op.drop_column("ended")
        batch_op.drop_column("searched_seconds")
