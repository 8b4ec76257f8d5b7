"""What can be known of a base and its experts from their weights alone, before anything is merged or scored."""
