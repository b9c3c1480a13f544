"""The database side: models, migrations, connections, the embedded server, and the SQL text."""
