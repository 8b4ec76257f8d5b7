"""rungs: nested shares of the documents, pruned trials, constraints, items that count wherever they are wanted again"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("document_set", schema=None) as batch_op:
        batch_op.add_column(sa.Column("sizes", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("digest", sa.String(length=64), nullable=True))

    with op.batch_alter_table("evaluation", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rung", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("documents_reused", sa.Integer(), nullable=True))
        batch_op.create_index("ix_evaluation_recipe_digest", ["recipe_digest"], unique=False)
        batch_op.drop_constraint("uq_evaluation_study_id", type_="unique")
        batch_op.create_unique_constraint("uq_evaluation_study_id", ["study_id", "recipe_digest", "part", "rung"])

    with op.batch_alter_table("merge_trial", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rung", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("steps", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("estimate", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("constraints", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("violation", sa.Double(), server_default="0", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("merge_trial", schema=None) as batch_op:
        for column in ("violation", "constraints", "estimate", "steps", "rung"):
            batch_op.drop_column(column)

    with op.batch_alter_table("evaluation", schema=None) as batch_op:
        batch_op.drop_constraint("uq_evaluation_study_id", type_="unique")
        batch_op.create_unique_constraint("uq_evaluation_study_id", ["study_id", "recipe_digest", "part"])
        batch_op.drop_index("ix_evaluation_recipe_digest")
        batch_op.drop_column("documents_reused")
        batch_op.drop_column("rung")

    with op.batch_alter_table("document_set", schema=None) as batch_op:
        batch_op.drop_column("digest")
        batch_op.drop_column("sizes")
