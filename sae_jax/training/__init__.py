"""The life of one lane: configuration, step, schedules, stopping, evaluation."""
