"""Adapters: functions that read a data set and return `Records`."""
