"""What is remembered. The only home of sqlalchemy and alembic."""
