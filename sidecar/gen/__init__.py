"""Generated from proto/ by scripts/generate."""
