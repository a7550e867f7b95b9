"""Files: written completely or not at all, read without running what is in them."""
