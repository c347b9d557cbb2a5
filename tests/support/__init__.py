"""What tests stand on: Airflow's task runner without a database, and watchers of an event loop."""
