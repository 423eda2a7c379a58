"""What trained lanes say: tables, figures, probes, tasks."""
