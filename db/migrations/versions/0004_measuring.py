"""measuring: how far an evaluation is with what its recipe looks at"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("evaluation", schema=None) as batch_op:
        batch_op.add_column(sa.Column("artefacts_done", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("artefacts_total", sa.Integer(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("evaluation", schema=None) as batch_op:
        batch_op.drop_column("artefacts_total")
        batch_op.drop_column("artefacts_done")
