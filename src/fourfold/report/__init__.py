"""From tables to text and figures; nothing here needs torch."""
