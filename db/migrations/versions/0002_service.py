"""service: leads, events, jobs, keys, processes, counters, progress of evaluations"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_key_prefix")),
    )
    counters = op.create_table(
        "counter",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counter")),
    )
    op.bulk_insert(counters, [{"name": name, "value": 0.0} for name in ("lease_expiries", "asks", "ask_seconds")])
    op.create_table(
        "process",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_process")),
    )
    op.create_table(
        "job",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=True),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("problem", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("token", sa.String(length=32), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["merge_study.id"], name=op.f("fk_job_study_id_merge_study"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index("ix_job_kind_state", ["kind", "state"], unique=False)

    op.create_table(
        "study_event",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["merge_study.id"], name=op.f("fk_study_event_study_id_merge_study"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "seq", name=op.f("pk_study_event")),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("principal", sa.String(length=100), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_idempotency_key_job_id_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("principal", "key", name=op.f("pk_idempotency_key")),
    )
    with op.batch_alter_table("evaluation", schema=None) as batch_op:
        batch_op.add_column(sa.Column("documents_done", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("documents_total", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("tokens_per_second", sa.Double(), nullable=True))
        batch_op.create_index("ix_evaluation_state_expires_at", ["state", "expires_at"], unique=False)

    with op.batch_alter_table("merge_study", schema=None) as batch_op:
        batch_op.add_column(sa.Column("phase", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("leader", sa.String(length=200), nullable=True))
        batch_op.add_column(sa.Column("lead_token", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("lead_expires_at", sa.Double(), nullable=True))

    with op.batch_alter_table("merge_trial", schema=None) as batch_op:
        batch_op.create_unique_constraint("uq_merge_trial_told_order", ["study_id", "told_order"])


def downgrade() -> None:
    with op.batch_alter_table("merge_trial", schema=None) as batch_op:
        batch_op.drop_constraint("uq_merge_trial_told_order", type_="unique")

    with op.batch_alter_table("merge_study", schema=None) as batch_op:
        batch_op.drop_column("lead_expires_at")
        batch_op.drop_column("lead_token")
        batch_op.drop_column("leader")
        batch_op.drop_column("phase")

    with op.batch_alter_table("evaluation", schema=None) as batch_op:
        batch_op.drop_index("ix_evaluation_state_expires_at")
        batch_op.drop_column("tokens_per_second")
        batch_op.drop_column("documents_total")
        batch_op.drop_column("documents_done")

    op.drop_table("idempotency_key")
    op.drop_table("study_event")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index("ix_job_kind_state")

    op.drop_table("job")
    op.drop_table("process")
    op.drop_table("counter")
    op.drop_table("api_key")
