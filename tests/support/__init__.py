"""What tests stand on: Airflow's ways of running a task, and watchers of an event loop."""
