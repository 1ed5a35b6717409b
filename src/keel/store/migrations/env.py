"""What Alembic runs for each step: on the connection and inside the transaction of `keel.store.migrate`."""

from alembic import context

from keel.store.tables import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
