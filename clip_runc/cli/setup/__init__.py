"""What ``clipctl install`` writes, one file a subject; nothing here writes by itself."""
